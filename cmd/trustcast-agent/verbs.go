package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

// version is set by the linker.
var version = "dev"

func (a *app) join() command {
	return command{
		name: "join", args: "HOST:PORT --token TOKEN", short: "Join a fleet and install the registry's CA, then exit; 'run' keeps it right",
		example: "  trustcast-agent join registry.example.com:7443 --token tc1.…\n  trustcast-agent join registry.example.com:7443 --token-file - <token",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.add(flags)
			flags.StringVar(&f.join, "join", "", "`HOST:PORT` of the server; the same as the argument")
			return func(ctx context.Context, args []string) error { return a.joinNow(ctx, f, args) }
		},
	}
}

func (a *app) joinNow(ctx context.Context, f hostFlags, args []string) error {
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
	verb := "Joined"
	if r.Already {
		verb = "Already joined"
	}
	_, err = fmt.Fprintf(a.stdout, "%s the fleet of %s as %s; its CA (generation %d, %s) is installed:\n", verb, r.Domain, r.Name, r.Generation, cli.Short(fmt.Sprint(r.Fingerprint)))
	for _, file := range r.Files {
		if err == nil {
			_, err = fmt.Fprintln(a.stdout, "  "+file)
		}
	}
	_, _ = fmt.Fprintln(a.stderr, "Next: keep it right with 'trustcast-agent run'.") // a remark
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
		name: "run", args: "[--join HOST:PORT --token TOKEN]", short: "Run the agent: keep the registry's CA right on this host, join first when given a token",
		example: "  trustcast-agent run\n  trustcast-agent run --join registry.example.com:7443 --token-file /run/secrets/trustcast",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.add(flags)
			flags.StringVar(&f.join, "join", "", "`HOST:PORT` of the server; only needed with a token")
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
				return agent.Run(ctx, cfg)
			}
		},
	}
}

func (a *app) leave() command {
	return command{
		name: "leave", short: "Remove the CA and the identity from this host; what others put there stays",
		example: "  trustcast-agent leave",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.addDirs(flags)
			return func(ctx context.Context, args []string) error {
				if err := extra(args, 0, "leave"); err != nil {
					return err
				}
				removed, err := agent.Leave(ctx, agent.Config{DataDir: f.dataDir, DockerCertsDir: f.certsDir, Version: version})
				if err != nil {
					return err
				}
				for _, path := range removed {
					if _, err := fmt.Fprintf(a.stdout, "removed %s\n", path); err != nil {
						return err
					}
				}
				_, _ = fmt.Fprintln(a.stderr, "This host has left; 'trustcast host rm NAME' on the server ends its identity there.") // a remark
				return nil
			}
		},
	}
}

func (a *app) version() command {
	return command{
		name: "version", short: "Print this program's version", example: "  trustcast-agent version -o json",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			out := output(flags)
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
					return cli.JSON(a.stdout, map[string]string{"version": version, "go": runtime.Version(), "platform": platform})
				}
				_, err = fmt.Fprintf(a.stdout, "trustcast-agent %s (%s, %s)\n", version, runtime.Version(), platform)
				return err
			}
		},
	}
}
