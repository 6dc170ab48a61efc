package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/logging"
	"github.com/trustcast/trustcast/server"
)

// serverFlags are the flags of `trustcast server`, beside those of init.
type serverFlags struct {
	initFlags
	init, pprof                             bool
	logFormat, logLevel                     choice
	image, network                          string
	replicas                                number
	minFree                                 byteSize
	registry, grpc, gossip, http, advertise string
	tick, goneAfter, deadline, identityLife duration
	serverIdentityLife                      duration
	rotateWindow                            string
}

func (f *serverFlags) add(flags *pflag.FlagSet) {
	f.logFormat, f.logLevel = newChoice(logging.Formats()...), newChoice(logging.Levels()...)
	f.initFlags.add(flags)
	flags.BoolVar(&f.init, "init", false, "create the registry first, as 'trustcast init' does, unless it is there already")
	flags.StringVar(&f.image, "registry-image", "", "`IMAGE` of the registry's containers (default registry:3); with --engine docker")
	flags.StringVar(&f.network, "registry-network", "", "Docker's `NETWORK` for the registry's containers, when their configuration needs one (default none at all); with --engine docker")
	f.replicas = number{1, 1, server.MaxReplicas}
	flags.Var(&f.replicas, "replicas", "how many containers share the registry's work; with --engine docker")
	flags.Var(&f.minFree, "min-free", "pushes get 507 when less is free on the disk; pulls and rotations go on (default 1GiB)")
	flags.StringVar(&f.registry, "listen", "", "`HOST:PORT` of the registry (default all addresses, port of the domain)")
	flags.StringVar(&f.grpc, "grpc-listen", "", "`HOST:PORT` for agents (default :7443)")
	flags.StringVar(&f.gossip, "gossip-listen", "", "`HOST:PORT` for gossip, TCP and UDP, or off (default :7947)")
	flags.StringVar(&f.http, "http-listen", "", "`HOST:PORT` for health and metrics, or off (default 127.0.0.1:7480)")
	flags.BoolVar(&f.pprof, "pprof", false, "serve profiles at --http-listen, which must be on loopback, since memory with secrets may be in them: 'go tool pprof http://127.0.0.1:7480/debug/pprof/profile'")
	flags.StringVar(&f.advertise, "advertise", "", "`HOST[:PORT]` that agents dial (default the domain's host and the port of --grpc-listen)")
	flags.Var(&f.tick, "tick", "how often agents report and check again (default 60s)")
	flags.Var(&f.goneAfter, "gone-after", "a host that gave no sign for so long is gone (default 10m)")
	flags.Var(&f.deadline, "deadline", "how long gone hosts are waited for after each step of a rotation (default 10m)")
	flags.Var(&f.identityLife, "identity-life", "life of a host's identity, renewed at two thirds (default 90d)")
	flags.Var(&f.serverIdentityLife, "server-identity-life", "life of the identity that agents know the server by, renewed at two thirds (default 30d)")
	flags.StringVar(&f.rotateWindow, "rotate-window", "", "when automatic rotations may start, `HH:MM-HH:MM` in UTC (default always)")
	flags.Var(&f.logFormat, "log-format", "how to write the log; auto is journal where systemd takes it, else text")
	flags.Var(&f.logLevel, "log-level", "write this and what is more urgent")
}

func (a *app) server() *cobra.Command {
	c := &cobra.Command{
		Use:   "server",
		Short: "Run the registry, own its CA, look after the fleet",
		Long: "Run the registry that 'trustcast init' created in the data directory. SIGTERM or Ctrl-C ends it gracefully.\n\n" +
			"Ports: 5000 registry, 7443 agents (gRPC), 7947 gossip (TCP and UDP), 127.0.0.1:7480 health and metrics.",
		Example: "  trustcast server\n  trustcast server --init --domain registry.example.com --user ci   # create it first, in one line\n  trustcast server --init --domain registry.example.com --adopt /srv/registry   # or take a plain one over",
		Args:    names(),
	}
	var f serverFlags
	f.add(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		if (f.adopt != "" || f.newCA) && !f.init {
			return cli.Errorf(cli.Usage, "--adopt and --new-ca are for a registry that is made: add --init, or leave them out")
		}
		a.sayTypos(c)
		cfg, err := supervised(f.config(a), a.getenv)
		if err != nil {
			return err
		}
		if err := cfg.Check(); err != nil {
			return cli.Errorf(cli.Usage, "%w", err)
		}
		kept, err := server.ReadKept(cfg.DataDir, cfg.Image)
		if err != nil {
			return err
		}
		kept.Upgraded = "" // the running registry is asked for it
		if cfg.Settings, err = a.settings(c.Flags(), a.origins, cfg, kept); err != nil {
			return err
		}
		if f.init {
			if err := a.createOnce(c.Context(), f.initFlags); err != nil {
				return err
			}
		}
		return server.Run(c.Context(), cfg)
	}
	return c
}

// createOnce is init for a server that the same line may have made before; a
// data directory of another domain is refused by server.Run.
func (a *app) createOnce(ctx context.Context, f initFlags) error {
	if server.Initialized(a.dataDir) {
		return nil
	}
	result, err := a.create(ctx, f)
	if err != nil {
		return err
	}
	if err := a.printCreated(result); err != nil || result.Adopted == nil {
		return err
	}
	a.sayTaken(result.Adopted)
	if running := strings.Join(result.Adopted.Running, " "); running != "" {
		return cli.Errorf(cli.Failed, "the registry is taken over and not served yet, since containers still use its data: run `docker update --restart=no %s` and `docker stop %s`, then repeat the command", running, running)
	}
	return nil
}

func (f *serverFlags) config(a *app) server.Config {
	log, err := logging.New(a.stderr, a.getenv, f.logFormat.value, f.logLevel.value) // stdout is for data
	if err != nil {
		panic(err) // both are choices of what it takes
	}
	return server.Config{
		DataDir: a.dataDir, Domain: f.domain, Aliases: f.aliases, Subject: f.subject, User: f.user,
		RegistryListen: f.registry, GRPCListen: f.grpc, GossipListen: f.gossip, HTTPListen: f.http, Pprof: f.pprof, Advertise: f.advertise,
		Tick: time.Duration(f.tick), GoneAfter: time.Duration(f.goneAfter), Deadline: time.Duration(f.deadline),
		CALife: time.Duration(f.caLife), LeafLife: time.Duration(f.leafLife), IdentityLife: time.Duration(f.identityLife),
		ControlLife: time.Duration(f.controlLife), ServerIdentityLife: time.Duration(f.serverIdentityLife),
		RotateWindow: f.rotateWindow,
		EngineName:   f.engine.value, Volume: f.volume, Image: f.image, Network: f.network, Replicas: f.replicas.value, MinFree: int64(f.minFree),
		Registry: server.RegistryParameters{
			File: a.file.Path, Section: a.file.Registry, Environ: a.environ(),
			Engine: f.engine.value, Network: f.network != "", Replicas: f.replicas.value,
		},
		Log:            log,
		Version:        version,
		GiveMemoryBack: true,
	}
}
