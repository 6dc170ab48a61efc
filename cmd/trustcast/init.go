package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	"github.com/trustcast/trustcast/server"
)

// initFlags describe a registry that is to be made.
type initFlags struct {
	domain, subject, user string
	aliases               []string
	passwordStdin         bool
	caLife, leafLife      duration
	controlLife           duration
	engine                choice
	volume                string
	adopt                 string
	newCA                 bool
}

func (f *initFlags) add(flags *pflag.FlagSet) {
	f.engine = choice{allowed: []string{"embedded", "docker"}}
	flags.Var(&f.engine, "engine", "what runs the registry behind the TLS front (default embedded; 'server' keeps to what 'init' was told)")
	flags.StringVar(&f.volume, "volume", "", "Docker's `VOLUME` for all data; with --engine docker")
	flags.StringVar(&f.domain, "domain", "", "`HOST[:PORT]` as it stands in image names; the port is 5000 by default")
	flags.StringSliceVar(&f.aliases, "alias", nil, "a further `NAME` of the registry, HOST[:PORT]; may be repeated")
	flags.StringVar(&f.subject, "subject", "", "subject of the registry CAs, like `C=DE,O=Example` (default O=trustcast)")
	flags.StringVar(&f.user, "user", "", "`NAME` of the first user; without users every request gets 401")
	flags.BoolVar(&f.passwordStdin, "password-stdin", false, "read that user's password from standard input")
	flags.Var(&f.caLife, "ca-life", "life of a registry CA, replaced at two thirds (default 365d)")
	flags.Var(&f.leafLife, "leaf-life", "life of a served certificate, replaced at two thirds (default 30d)")
	flags.StringVar(&f.adopt, "adopt", "", "take over the data of a plain registry: `DIR|volume:NAME|FILE.tar`")
	flags.BoolVar(&f.newCA, "new-ca", false, "with --adopt: make a new CA at once; every host fails until it has joined")
	config.FromCommandLine(flags, "adopt", "new-ca")
	flags.Var(&f.controlLife, "control-life", "life of the CA behind server's and hosts' identities, re-issued with the same key at half (default 3650d)")
}

func (a *app) initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init --domain HOST[:PORT]",
		Short: "Create a registry, or adopt a plain one: its CA, its identity, its first user",
		Long: "Create a registry in a data directory that holds none: its CA, its identity and its first user. Nothing runs afterwards; 'trustcast server' does that, and keeps to the engine, the volume, the subject and the lives that are given here unless it is told others. Names are for good.\n\n" +
			"The user's password is asked for on a terminal, read with --password-stdin, or generated and printed once.\n\n" +
			"With --adopt the data of a plain registry:2 or registry:3 are taken over: images and users stay, and its certificate is served on until the first rotation, so that no host needs anything on the first day. A directory or volume is taken over where it is, and --data-dir becomes a link to it unless it is that directory; docker/registry/v2, certs/ (domain.crt, domain.key, ca.crt) and auth/htpasswd are looked for in it.",
		Example: "  trustcast init --domain registry.example.com --user ci\n  trustcast init --domain registry.example.com --user ci --engine docker --volume registry\n  trustcast init --domain registry.example.com:443 --alias registry --subject 'C=DE,O=Example' --user ci --password-stdin <password.txt\n  trustcast init --domain registry.example.com --adopt /srv/registry\n  trustcast init --domain registry.example.com --adopt volume:registry-data",
		Args:    names(),
	}
	var f initFlags
	f.add(c.Flags())
	out := output(c.Flags(), initJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		result, err := a.create(c.Context(), f)
		if err != nil {
			return err
		}
		if out.json() {
			return cli.JSON(a.stdout, initJSON{result.Domain, result.FleetID, string(result.Fingerprint), result.User, result.Password, newAdoptedJSON(result.Adopted)})
		}
		if err := a.printCreated(result); err != nil {
			return err
		}
		if port := wrongSocket(a.dataDir, result.Domain); port != "" {
			a.say("The unit's socket is on port %s, and the registry is to be on %s. Before the start: %s.", socketPort, port, server.SocketAdvice(port))
		}
		if result.Adopted != nil {
			a.sayAdopted(result.Adopted)
			return nil
		}
		a.say("Next: %s", a.startHint())
		return nil
	}
	return c
}

type initJSON struct {
	// Domain is HOST:PORT as in image names.
	Domain string `json:"domain"`
	// FleetID is the new fleet.
	FleetID string `json:"fleet_id"`
	// Fingerprint is the SHA-256 of what hosts should trust.
	Fingerprint string `json:"fingerprint"`
	// User is the first one, else empty.
	User string `json:"user"`
	// Password is the generated one, else empty.
	Password string `json:"password"`
	// Adopted is null for a new registry.
	Adopted *adoptedJSON `json:"adopted"`
}

// create makes the registry that the flags describe.
func (a *app) create(ctx context.Context, f initFlags) (server.InitResult, error) {
	var none server.InitResult
	if f.domain == "" {
		return none, cli.Errorf(cli.Usage, "--domain is missing: it is the name that stands in image names, like registry.example.com; add --domain HOST[:PORT]")
	}
	if f.user == "" && f.passwordStdin {
		return none, cli.Errorf(cli.Usage, "--password-stdin is for the first user; add --user NAME")
	}
	if f.newCA && f.adopt == "" {
		return none, cli.Errorf(cli.Usage, "--new-ca is for a registry that is taken over: add --adopt DIR, or leave it out")
	}
	cfg := server.InitConfig{
		DataDir: a.dataDir, Domain: f.domain, Aliases: f.aliases, Subject: f.subject, User: f.user,
		CALife: time.Duration(f.caLife), LeafLife: time.Duration(f.leafLife), ControlLife: time.Duration(f.controlLife),
		EngineName: f.engine.value, Volume: f.volume,
		Adopt: server.AdoptConfig{From: f.adopt, NewCA: f.newCA},
	}
	err := cfg.Check()
	if err == nil && f.user != "" && !server.Initialized(a.dataDir) { // else Init refuses; no need to ask first
		if cfg.Password, err = a.password(f.user, f.passwordStdin); err != nil {
			return none, err
		}
		err = cfg.Check()
	}
	if err != nil {
		return none, cli.Errorf(cli.Usage, "%w", err)
	}
	return server.Init(ctx, cfg)
}

// printCreated shows the result: data on stdout, advice on stderr.
func (a *app) printCreated(r server.InitResult) error {
	rows := []string{row("domain", r.Domain), row("fleet", r.FleetID), row("fingerprint", string(r.Fingerprint))}
	rows = append(rows, adoptedRows(r)...)
	if r.User != "" {
		rows = append(rows, row("user", r.User))
	}
	if r.Password != "" {
		rows = append(rows, row("password", r.Password))
	}
	if err := table(a.stdout, rows...); err != nil {
		return err
	}
	if r.Password != "" {
		a.say("The password is shown only this once.")
	}
	if r.User == "" && (r.Adopted == nil || len(r.Adopted.Users) == 0) {
		a.say("There is no user yet, so every request gets 401; add one with '%s' once the server runs.", a.hint("user add NAME"))
	}
	return nil
}

// hint is a command line of this program for the same data directory.
func (a *app) hint(command string) string {
	if a.dataDir == defaultDataDir {
		return "trustcast " + command
	}
	return fmt.Sprintf("trustcast %s --data-dir %s", command, a.dataDir)
}
