package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

// version is set by the linker.
var version = "dev"

func (a *app) join() command {
	return command{
		name: "join", args: "HOST:PORT --token TOKEN", short: "Join a fleet and install the registry's CA, then exit; 'run' keeps it right. Another server's line adds its registry",
		example: "  trustcast-agent join registry.example.com:7443 --token tc1.…\n  trustcast-agent join registry.example.com:7443 --token-file - <token",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.add(flags)
			flags.StringVar(&f.join, "join", "", "`HOST:PORT` of the server; the same as the argument")
			out := output(flags, joinedJSON{})
			return func(ctx context.Context, args []string) error { return a.joinNow(ctx, f, args, out) }
		},
	}
}

// joinedJSON is `join -o json`.
type joinedJSON struct {
	// Already: it had joined before, and nothing was changed.
	Already bool `json:"already"`
	// Domain is HOST:PORT as in image names.
	Domain string `json:"domain"`
	// Name is this host's in the fleet.
	Name string `json:"name"`
	// Generation is what is installed.
	Generation uint64 `json:"generation"`
	// Fingerprint is the SHA-256 of what is installed.
	Fingerprint string `json:"fingerprint"`
	// Files are the paths of what is installed.
	Files []string `json:"files"`
}

func (a *app) joinNow(ctx context.Context, f hostFlags, args []string, out *format) error {
	asJSON, err := out.json()
	if err != nil {
		return err
	}
	if err := f.takeServer(args, "join"); err != nil {
		return err
	}
	if _, err := f.logger(a); err != nil {
		return err
	}
	cfg, err := f.config(a, slog.New(slog.DiscardHandler)) // the result says it all
	if err != nil {
		return err
	}
	if cfg.Server == "" {
		return cli.Errorf(cli.Usage, "the server's address is missing; 'trustcast token create' on the server prints the complete line")
	}
	r, err := agent.Join(ctx, cfg)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.JSON(a.stdout, joinedJSON{r.Already, r.Domain, r.Name, r.Generation, fmt.Sprint(r.Fingerprint), append([]string{}, r.Files...)})
	}
	verb := "Joined"
	if r.Already {
		verb = "Already joined"
	}
	where := "is installed:"
	if len(r.Files) == 0 {
		where = "is not installed."
	}
	_, err = fmt.Fprintf(a.stdout, "%s the fleet of %s as %s; its CA (generation %d, %s) %s\n", verb, r.Domain, r.Name, r.Generation, cli.Short(fmt.Sprint(r.Fingerprint)), where)
	for _, file := range r.Files {
		if err == nil {
			_, err = fmt.Fprintln(a.stdout, "  "+file)
		}
	}
	for _, f := range r.Wrong {
		_, _ = fmt.Fprintln(a.stderr, "warning: "+f.Text()) // a remark
	}
	if f.name != "" && f.name != r.Name {
		_, _ = fmt.Fprintf(a.stderr, "warning: this host is called %s there, and stays so: --name %s is not heeded\n", r.Name, f.name) // a remark
	}
	for _, m := range r.Manual {
		_, _ = fmt.Fprintf(a.stderr, "Not done for %s: %s.\n%s\n", m.Runtime, m.Why, m.Instructions) // a remark
	}
	next := "Next: keep it right with 'trustcast-agent run'."
	if r.Running {
		next = "The agent that runs here keeps it right."
	}
	_, _ = fmt.Fprintln(a.stderr, next) // a remark
	return err
}

// takeServer accepts the server's address as argument or flag.
func (f *hostFlags) takeServer(args []string, command string) error {
	if err := extra(args, 1, command); err != nil {
		return err
	}
	if len(args) == 1 {
		f.join = args[0]
	}
	return nil
}

func (a *app) run() command {
	return command{
		name: "run", args: "[--join HOST:PORT --token TOKEN]", short: "Run the agent: keep the CA of each joined registry right on this host, join first when given a token",
		example: "  trustcast-agent run\n  trustcast-agent run --join registry.example.com:7443 --token-file /run/secrets/trustcast\n  trustcast-agent run --await-join",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.add(flags)
			flags.StringVar(&f.join, "join", "", "`HOST:PORT` of the server; only needed with a token")
			await := flags.Bool("await-join", false, "wait for 'trustcast-agent join' where no registry was joined yet, or none is left, instead of ending")
			return func(ctx context.Context, args []string) error {
				if err := f.takeServer(args, "run"); err != nil {
					return err
				}
				log, err := f.logger(a)
				if err != nil {
					return err
				}
				cfg, err := f.config(a, log)
				if err != nil {
					return err
				}
				cfg.AwaitJoin = *await
				cfg, stop := supervised(ctx, cfg, a.getenv)
				defer stop()
				return agent.Run(ctx, cfg)
			}
		},
	}
}

func (a *app) leave() command {
	return command{
		name: "leave", args: "[DOMAIN | --all]", short: "Remove a registry's CA and this host's identity there; what others put there stays",
		example: "  trustcast-agent leave\n  trustcast-agent leave registry.example.com\n  trustcast-agent leave --all",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.addDirs(flags)
			all := flags.Bool("all", false, "leave every registry")
			out := output(flags, leftJSON{})
			return func(ctx context.Context, args []string) error {
				asJSON, err := out.json()
				if err != nil {
					return err
				}
				return a.leaveNow(ctx, f, args, *all, asJSON)
			}
		},
	}
}

func (a *app) leaveNow(ctx context.Context, f hostFlags, args []string, all, asJSON bool) error {
	if err := extra(args, 1, "leave"); err != nil {
		return err
	}
	cfg := agent.Config{DataDir: f.dataDir, DockerCertsDir: f.certsDir, Version: version}
	var r agent.LeaveResult
	var err error
	switch {
	case all && len(args) > 0:
		return cli.Errorf(cli.Usage, "--all and the registry %s are both given; leave one away", args[0])
	case all:
		r, err = agent.LeaveAll(ctx, cfg)
	default:
		r, err = agent.Leave(ctx, cfg, strings.Join(args, ""))
	}
	if asJSON && (err == nil || len(r.Removed) > 0) {
		return errors.Join(cli.JSON(a.stdout, newLeftJSON(r)), err)
	}
	for _, path := range r.Removed {
		if _, bad := fmt.Fprintf(a.stdout, "removed %s\n", path); err == nil {
			err = bad
		}
	}
	for _, l := range r.Left {
		_, _ = fmt.Fprintln(a.stderr, leftText(l)) // a remark
	}
	if err == nil && len(r.Left) == 0 {
		_, _ = fmt.Fprintln(a.stderr, "Nothing to leave: this host has joined no registry.") // a remark
	}
	return err
}

// leftText says what is left to do, on another machine.
func leftText(l agent.Left) string {
	if l.Name == "" {
		return "This host has left; 'trustcast host rm NAME' on the server ends its identity there."
	}
	host, _, err := net.SplitHostPort(l.Domain)
	if err != nil {
		host = l.Domain
	}
	return fmt.Sprintf("This host has left %s; its identity there ends with 'trustcast host rm %s' on the server of %s.", l.Domain, l.Name, host)
}

// leftJSON is `leave -o json`.
type leftJSON struct {
	// Removed are the paths of what is gone.
	Removed []string `json:"removed"`
	// Registries are those that were left.
	Registries []leftRegistryJSON `json:"registries"`
}

type leftRegistryJSON struct {
	// Domain is HOST:PORT as in image names; empty where that was not to be read.
	Domain string `json:"domain"`
	// Name is this host's there, until `trustcast host rm` on the server.
	Name string `json:"name"`
}

func newLeftJSON(r agent.LeaveResult) leftJSON {
	out := leftJSON{append([]string{}, r.Removed...), []leftRegistryJSON{}}
	for _, l := range r.Left {
		out.Registries = append(out.Registries, leftRegistryJSON(l))
	}
	return out
}

func (a *app) version() command {
	return command{
		name: "version", short: "Print this program's version", example: "  trustcast-agent version -o json",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			out := output(flags, cli.Version{})
			return func(_ context.Context, args []string) error {
				if err := extra(args, 0, "version"); err != nil {
					return err
				}
				platform := runtime.GOOS + "/" + runtime.GOARCH
				asJSON, err := out.json()
				if err != nil {
					return err
				}
				if asJSON {
					return cli.JSON(a.stdout, cli.Version{Version: version, Go: runtime.Version(), Platform: platform})
				}
				_, err = fmt.Fprintf(a.stdout, "trustcast-agent %s (%s, %s)\n", version, runtime.Version(), platform)
				return err
			}
		},
	}
}
