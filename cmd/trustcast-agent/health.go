package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

func (a *app) health() command {
	return command{
		name: "health", short: "Say whether the agent is well, for a container's health check",
		example: "  trustcast-agent health\n  trustcast-agent health --live   # only whether it runs",
		define: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var f hostFlags
			f.addDirs(flags)
			live := flags.Bool("live", false, "ask only whether the agent runs")
			return func(_ context.Context, args []string) error {
				if err := extra(args, 0, "health"); err != nil {
					return err
				}
				cfg := agent.Config{DataDir: f.dataDir, DockerCertsDir: f.certsDir, Version: version}
				if *live {
					return a.printHealth([]agent.Status{{Running: agent.Runs(cfg)}}, true)
				}
				all, err := agent.ReadAll(cfg)
				if errors.Is(err, agent.ErrNotJoined) {
					all, err = []agent.Status{{Running: agent.Runs(cfg), Files: []agent.FileStatus{{Problem: err.Error(), Foreign: true}}}}, nil
				}
				if err != nil {
					return errors.New(err.Error()) // Docker knows 0 and 1: no other code
				}
				return a.printHealth(all, false)
			}
		},
	}
}

// printHealth: an agent is well that runs and keeps its files right. One that waits for
// a join has none yet: it lives, and no pull works by it. That its server is
// away is no reason to start it again, and `status` says it.
func (a *app) printHealth(all []agent.Status, live bool) error {
	parts := []struct{ name, problem string }{{"agent", ""}, {"files", ""}}
	for _, s := range all {
		if !s.Running {
			parts[0].problem = "it does not run: start it with 'trustcast-agent run'"
		}
		for _, f := range s.Files {
			if !f.OK && parts[1].problem == "" {
				parts[1].problem = wrongText(f)
			}
		}
	}
	if live {
		parts = parts[:1]
	}
	var bad error
	for _, p := range parts {
		line := fmt.Sprintf("[+]%s ok", p.name)
		if p.problem != "" {
			line = fmt.Sprintf("[-]%s failed: %s", p.name, p.problem)
			bad = cli.Errorf(cli.Failed, "not well: %s", p.problem)
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return bad
}
