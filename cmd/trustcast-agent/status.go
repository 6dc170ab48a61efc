package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

// format is the -o flag of a command that prints data.
type format struct {
	value string
	// shapes are values of the types that are printed as JSON; the reference is written
	// from them.
	shapes []any
}

// output adds -o: with json, a value of one of these types, for which
// docs/reference/json.md is written.
func output(flags *flag.FlagSet, shapes ...any) *format {
	f := &format{"text", shapes}
	flags.Var(f, "output", "how to print, `text|json`")
	flags.Var(f, "o", "short for --output, `text|json`")
	return f
}

func (f *format) String() string { return f.value }

// Set takes any value; json refuses those that are none.
func (f *format) Set(s string) error {
	f.value = s
	return nil
}

func (f *format) json() (bool, error) {
	switch f.value {
	case "text", "json":
		return f.value == "json", nil
	}
	return false, cli.Errorf(cli.Usage, "-o %q is neither text nor json", f.value)
}

func (a *app) status() command {
	return command{
		name: "status", short: "Show what is installed on this host and whether it is right",
		example: "  trustcast-agent status\n  trustcast-agent status -o json",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.addDirs(flags)
			out := output(flags, allJSON{})
			return func(_ context.Context, args []string) error {
				asJSON, err := out.json()
				if err != nil {
					return err
				}
				if err := extra(args, 0, "status"); err != nil {
					return err
				}
				all, err := agent.ReadAll(agent.Config{DataDir: f.dataDir, DockerCertsDir: f.certsDir, Version: version})
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(a.stdout, all)
				} else {
					err = printStatus(a.stdout, all)
				}
				if err != nil {
					return err
				}
				return verdict(all)
			}
		},
	}
}

// verdict makes the exit code: the worst of all registries.
func verdict(all []agent.Status) error {
	if len(all) == 1 {
		return verdictOn(all[0])
	}
	code, lines := cli.Done, []string{}
	for _, s := range all {
		if err := verdictOn(s); err != nil {
			lines = append(lines, registryOf(s)+": "+err.Error())
			if code != cli.Bad {
				code = cli.Code(err)
			}
		}
	}
	if code == cli.Done {
		return nil
	}
	return cli.Errorf(code, "%s", strings.Join(lines, "; "))
}

// registryOf is the domain; of a membership that cannot be read, what is known.
func registryOf(s agent.Status) string {
	switch {
	case s.Domain != "":
		return s.Domain
	case s.Server != "":
		return "the registry of " + s.Server
	default:
		return "the registry that was joined first"
	}
}

// verdictOn is about one registry: an agent that does not run cannot be reached, and
// one that runs may have something to say.
func verdictOn(s agent.Status) error {
	if s.Running && s.Contested != "" {
		return cli.Errorf(cli.Bad, "%s", s.Problem) // the files are right and wrong by turns
	}
	for _, f := range s.Files {
		if !f.OK && !f.Aside {
			return cli.Errorf(cli.Bad, "%s", wrongText(f))
		}
	}
	switch {
	case !s.Running:
		return cli.Errorf(cli.Unreachable, "the agent does not run; what is installed stays, but no rotation is followed: start it with 'trustcast-agent run'")
	case s.Problem != "":
		return cli.Errorf(cli.Bad, "%s", s.Problem)
	case !s.Connected:
		return cli.Errorf(cli.Bad, "there is no connection to the server %s; the agent keeps trying, look at its log and at the way to that address", s.Server)
	}
	return nil
}

// wrongText says of a file who mends it: of what others have put there, people do.
func wrongText(f agent.FileStatus) string {
	if f.Foreign {
		return f.Text()
	}
	return f.Text() + "; a running agent mends it"
}

// statusJSON is `status -o json`. Keys are stable; lists are never null; times
// are RFC 3339 in UTC, null when unset.
type statusJSON struct {
	// HostID is for good.
	HostID string `json:"host_id"`
	// Name is unique in the fleet.
	Name string `json:"name"`
	// FleetID is the fleet that it belongs to.
	FleetID string `json:"fleet_id"`
	// Domain is HOST:PORT as in image names.
	Domain string `json:"domain"`
	// Server is HOST:PORT that the agent dials.
	Server string `json:"server"`
	// Generation is what is installed.
	Generation uint64 `json:"generation"`
	// Fingerprint is the SHA-256 of what is installed.
	Fingerprint string `json:"fingerprint"`
	// Files are those that it installed.
	Files []fileJSON `json:"files"`
	// Running says that an agent runs on this host.
	Running bool `json:"running"`
	// Connected says that its stream to the server is open.
	Connected bool `json:"connected"`
	// Gossip is ok, unreachable or off; empty before it is known and without an agent.
	Gossip string `json:"gossip"`
	// Problem is what is wrong, in words, else empty.
	Problem string `json:"problem"`
	// LastSync is the server's last word.
	LastSync *time.Time `json:"last_sync"`
	// IdentityNotAfter is when its identity ends, which is renewed before.
	IdentityNotAfter *time.Time `json:"identity_not_after"`
	// Repairs counts what was mended since the agent's start.
	Repairs uint64 `json:"repairs"`
	// Repaired is when that was last.
	Repaired *time.Time `json:"repaired"`
	// RepairedPath is what was mended last, else empty.
	RepairedPath string `json:"repaired_path"`
	// Contested is what something else changes again and again, else empty.
	Contested string `json:"contested"`
}

// allJSON has the first registry's keys, and all of them in a list.
type allJSON struct {
	statusJSON
	// Registries are all that this host has joined, the first one first.
	Registries []statusJSON `json:"registries"`
}

type fileJSON struct {
	// Runtime reads it, such as docker.
	Runtime string `json:"runtime"`
	// Path is the file.
	Path string `json:"path"`
	// OK says that it is as the server wants it.
	OK bool `json:"ok"`
	// Problem is what is wrong, in words, else empty.
	Problem string `json:"problem"`
	// Note is what works and is worth knowing, else empty.
	Note string `json:"note"`
}

func printJSON(w io.Writer, all []agent.Status) error {
	var list []statusJSON
	for _, s := range all {
		files := []fileJSON{}
		for _, f := range s.Files {
			files = append(files, fileJSON{f.Runtime, f.Path, f.OK, f.Problem, f.Note})
		}
		list = append(list, statusJSON{
			s.HostID, s.Name, s.FleetID, s.Domain, s.Server, s.Generation, s.Fingerprint, files,
			s.Running, s.Connected, s.Gossip, s.Problem, cli.Instant(s.LastSync), cli.Instant(s.IdentityNotAfter),
			s.Repairs, cli.Instant(s.Repaired), s.RepairedPath, s.Contested,
		})
	}
	return cli.JSON(w, allJSON{list[0], list})
}

// printStatus writes a block for each registry.
func printStatus(w io.Writer, all []agent.Status) error {
	for i, s := range all {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := printBlock(w, s); err != nil {
			return err
		}
	}
	return nil
}

func printBlock(w io.Writer, s agent.Status) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := [][2]string{
		{"host", s.Name + " (" + s.HostID + ")"},
		{"registry", s.Domain},
		{"server", s.Server + ", " + connection(s)},
		{"generation", fmt.Sprintf("%d (%s)", s.Generation, cli.Short(s.Fingerprint))},
	}
	for _, f := range s.Files {
		text := f.Path + ": ok"
		if !f.OK {
			text = f.Text()
		} else if f.Note != "" {
			text += " (" + f.Note + ")"
		}
		rows = append(rows, [2]string{"file", text})
	}
	gossip := orDash(s.Gossip)
	if s.GossipProblem != "" {
		gossip += ": " + s.GossipProblem
	}
	rows = append(rows, [2]string{"gossip", gossip}, [2]string{"last sync", orDash(cli.Day(s.LastSync))}, [2]string{"identity until", orDash(cli.Day(s.IdentityNotAfter))})
	if s.Repairs > 0 {
		rows = append(rows, [2]string{"repairs", fmt.Sprintf("%d since the agent's start, the last of %s at %s", s.Repairs, s.RepairedPath, s.Repaired.UTC().Format(time.RFC3339))})
	}
	if s.Problem != "" {
		rows = append(rows, [2]string{"problem", s.Problem})
	}
	if s.HostID == "" { // it cannot be read
		rows = [][2]string{{"registry", registryOf(s)}, {"problem", s.Problem}}
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(tw, "%s\t%s\n", r[0], r[1]); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func connection(s agent.Status) string {
	switch {
	case !s.Running:
		return "agent not running"
	case s.Connected:
		return "connected"
	default:
		return "not connected"
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
