package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

func (a *app) doctor() command {
	return command{
		name: "doctor", args: "[DOMAIN]", short: "Say whether this host's next pull works, and if not, why and what to do; a DOMAIN is needed only before joining",
		example: "  trustcast-agent doctor\n  trustcast-agent doctor --fix\n  trustcast-agent doctor registry.example.com:5000 -o json",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.addDirs(flags)
			flags.StringVar(&f.runtimes, "runtimes", "", "`auto|LIST`, the runtimes to look at before joining; then those that it has joined with (default as of join)")
			out := output(flags, diagnosesJSON{})
			fix := flags.Bool("fix", false, "first put right what is the agent's own; other files are never touched")
			return func(ctx context.Context, args []string) error {
				asJSON, err := out.json()
				if err != nil {
					return err
				}
				if err := extra(args, 1, "doctor"); err != nil {
					return err
				}
				domain := strings.Join(args, "")
				runtimes, err := f.runtimeList() // of a host that has not joined
				if err != nil {
					return err
				}
				done := a.busy("looking at this host and the way to its registry, up to 10 s …")
				all, err := agent.Doctor(ctx, agent.Config{DataDir: f.dataDir, DockerCertsDir: f.certsDir, Runtimes: runtimes, Version: version}, domain, *fix)
				done()
				if err != nil {
					return err
				}
				return a.tell(all, asJSON)
			}
		},
	}
}

// busy says on a terminal what takes its time, until done is called.
func (a *app) busy(what string) (done func()) {
	file, ok := a.stderr.(*os.File)
	if !ok {
		return func() {}
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return func() {}
	}
	_, _ = fmt.Fprint(file, what)                                                       // a remark
	return func() { _, _ = fmt.Fprint(file, "\r"+strings.Repeat(" ", len(what))+"\r") } // and gone
}

// tell prints what was found; the error is the verdict.
func (a *app) tell(all []agent.Diagnosis, asJSON bool) error {
	write := printDiagnoses
	if asJSON {
		write = writeDiagnoses
	}
	if err := write(a.stdout, all); err != nil {
		return err
	}
	var failing []string
	for _, d := range all {
		if agent.Verdict([]agent.Diagnosis{d}) == "fail" {
			failing = append(failing, d.Registry)
		}
	}
	if len(failing) > 0 {
		return cli.Errorf(cli.Bad, "the next pull from %s fails here; the reasons are above", strings.Join(failing, " and from "))
	}
	return nil
}

// diagnosesJSON is `doctor -o json`. Keys and the checks' IDs are stable; lists are
// never null.
type diagnosesJSON struct {
	// Verdict is the worst state of all checks.
	Verdict string `json:"verdict"`
	// Registries are the domains that were looked at.
	Registries []string `json:"registries"`
	// Mended is what --fix put right, each in a sentence.
	Mended []string `json:"mended"`
	// Checks are what was looked at.
	Checks []checkJSON `json:"checks"`
}

type checkJSON struct {
	// Registry is the domain that it is about.
	Registry string `json:"registry"`
	// ID is stable.
	ID string `json:"id"`
	// State is ok, warn or fail.
	State string `json:"state"`
	// Subject is what it is about, such as a file; else empty.
	Subject string `json:"subject"`
	// Text is what was seen.
	Text string `json:"text"`
	// Fix is what to do, else empty.
	Fix string `json:"fix"`
}

func writeDiagnoses(w io.Writer, all []agent.Diagnosis) error {
	out := diagnosesJSON{Verdict: string(agent.Verdict(all)), Registries: []string{}, Mended: []string{}, Checks: []checkJSON{}}
	for _, d := range all {
		if d.Registry != "" {
			out.Registries = append(out.Registries, d.Registry)
		}
		out.Mended = append(out.Mended, d.Mended...)
		for _, c := range d.Checks {
			out.Checks = append(out.Checks, checkJSON{d.Registry, c.ID, string(c.State), c.Subject, c.Text, c.Fix})
		}
	}
	return cli.JSON(w, out)
}

// groups are the headings, in the order in which they are printed.
var groups = [][2]string{
	{"host", "this host"}, {"network", "network"}, {"engine", "engine"}, {"files", "files"}, {"trust", "trust"}, {"restart", "to be restarted"},
}

func printDiagnoses(w io.Writer, all []agent.Diagnosis) error {
	var b strings.Builder
	for i, d := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		if len(all) > 1 {
			fmt.Fprintf(&b, "%s\n\n", d.Registry)
		}
		for _, m := range d.Mended {
			fmt.Fprintf(&b, "mended: %s\n", m)
		}
		for _, g := range groups {
			printGroup(&b, g, d)
		}
		fmt.Fprintf(&b, "\n%s\n", summary(d))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printGroup(b *strings.Builder, g [2]string, d agent.Diagnosis) {
	heading := g[1] + "\n"
	for _, c := range d.Checks {
		if group, _, _ := strings.Cut(c.ID, "."); group != g[0] {
			continue
		}
		fmt.Fprintf(b, "%s  %-4s  %s\n", heading, c.State, c.Text)
		if heading = ""; c.Fix != "" {
			fmt.Fprintf(b, "        → %s\n", c.Fix)
		}
	}
}

func summary(d agent.Diagnosis) string {
	subject := "The next pull"
	if d.Registry != "" {
		subject += " from " + d.Registry
	}
	switch agent.Verdict([]agent.Diagnosis{d}) {
	case "fail":
		return subject + " fails."
	case "warn":
		if d.Registry == "" {
			return "Name the registry to see whether a pull works: trustcast-agent doctor DOMAIN"
		}
		return subject + " works; there is something to look at."
	}
	return subject + " works."
}
