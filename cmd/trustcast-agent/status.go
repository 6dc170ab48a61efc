package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

// format is the -o flag of a command that prints data.
type format string

func output(flags *flag.FlagSet) *format {
	f := format("text")
	flags.StringVar((*string)(&f), "output", "text", "`text|json`, how to print")
	flags.StringVar((*string)(&f), "o", "text", "`text|json`, short for --output")
	return &f
}

func (f *format) json() (bool, error) {
	switch *f {
	case "text", "json":
		return *f == "json", nil
	}
	return false, cli.Errorf(cli.Usage, "-o %q is neither text nor json", string(*f))
}

func (a *app) status() command {
	return command{
		name: "status", short: "Show what is installed on this host and whether it is right",
		example: "  trustcast-agent status\n  trustcast-agent status -o json",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.addDirs(flags)
			out := output(flags)
			return func(_ context.Context, args []string) error {
				asJSON, err := out.json()
				if err != nil {
					return err
				}
				if err := extra(args, 0, "status"); err != nil {
					return err
				}
				s, err := agent.ReadStatus(agent.Config{DataDir: f.dataDir, DockerCertsDir: f.certsDir, Version: version})
				if err != nil {
					return err
				}
				if err := printStatus(a.stdout, s, asJSON); err != nil {
					return err
				}
				return verdict(s)
			}
		},
	}
}

// verdict makes the exit code: an agent that does not run cannot be reached,
// and one that runs may have something to say.
func verdict(s agent.Status) error {
	for _, f := range s.Files {
		if !f.OK {
			return cli.Errorf(cli.Bad, "%s is not right: %s; a running agent mends it", f.Path, f.Problem)
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

// statusJSON is `status -o json`. Keys are stable; lists are never null; times
// are RFC 3339 in UTC, null when unset.
type statusJSON struct {
	HostID           string     `json:"host_id"`
	Name             string     `json:"name"`
	FleetID          string     `json:"fleet_id"`
	Domain           string     `json:"domain"`
	Server           string     `json:"server"`
	Generation       uint64     `json:"generation"`
	Fingerprint      string     `json:"fingerprint"`
	Files            []fileJSON `json:"files"`
	Running          bool       `json:"running"`
	Connected        bool       `json:"connected"`
	Gossip           string     `json:"gossip"`
	Problem          string     `json:"problem"`
	LastSync         *time.Time `json:"last_sync"`
	IdentityNotAfter *time.Time `json:"identity_not_after"`
}

type fileJSON struct {
	Path    string `json:"path"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem"`
}

func printStatus(w io.Writer, s agent.Status, asJSON bool) error {
	if asJSON {
		files := []fileJSON{}
		for _, f := range s.Files {
			files = append(files, fileJSON{f.Path, f.OK, f.Problem})
		}
		return cli.JSON(w, statusJSON{
			s.HostID, s.Name, s.FleetID, s.Domain, s.Server, s.Generation, s.Fingerprint, files,
			s.Running, s.Connected, s.Gossip, s.Problem, cli.Instant(s.LastSync), cli.Instant(s.IdentityNotAfter),
		})
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := [][2]string{
		{"host", s.Name + " (" + s.HostID + ")"},
		{"registry", s.Domain},
		{"server", s.Server + ", " + connection(s)},
		{"generation", fmt.Sprintf("%d (%s)", s.Generation, cli.Short(s.Fingerprint))},
	}
	for _, f := range s.Files {
		state := "ok"
		if !f.OK {
			state = f.Problem
		}
		rows = append(rows, [2]string{"file", f.Path + ": " + state})
	}
	rows = append(rows, [2]string{"gossip", orDash(s.Gossip)}, [2]string{"last sync", orDash(cli.Day(s.LastSync))}, [2]string{"identity until", orDash(cli.Day(s.IdentityNotAfter))})
	if s.Problem != "" {
		rows = append(rows, [2]string{"problem", s.Problem})
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
