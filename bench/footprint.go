package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// agents are a small fleet: gossip keeps every member in memory, so the figure is for
// a few hosts.
const agents = 5

// footprint measures what our programs cost where they run: their size, and their
// memory when idle, of the agents the greatest.
func footprint(ctx context.Context, l *lab) (*table, error) {
	const agent = "trustcast-agent"
	t := &table{title: fmt.Sprintf("Footprint: one server and %d agents, idle", agents), subjects: []string{ours, agent}}
	running := map[string][]*process{}
	server, err := l.trustcast(ctx)
	if err != nil {
		return nil, err
	}
	running[ours] = []*process{server.process}
	if running[agent], err = l.fleet(ctx, server); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(settle):
	}
	for _, s := range t.subjects {
		info, err := os.Stat(l.path(s))
		if err != nil {
			return nil, err
		}
		t.row("program, stripped", "MB").add(s, float64(info.Size())/1e6)
		var most memory
		for _, p := range running[s] {
			m, err := p.memory()
			if err != nil {
				return nil, err
			}
			if m.resident > most.resident {
				most = m
			}
		}
		t.row("resident", "MiB").add(s, megabytes(most.resident))
		t.row("anonymous", "MiB").add(s, megabytes(most.anonymous))
	}
	return t, nil
}

// fleet joins agents to a server and returns when all are trusted.
func (l *lab) fleet(ctx context.Context, server *contender) ([]*process, error) {
	program, err := l.program(ctx, "trustcast-agent")
	if err != nil {
		return nil, err
	}
	address := regexp.MustCompile(`what=grpc address=(\S+)`).FindStringSubmatch(server.said())
	if address == nil {
		return nil, fmt.Errorf("the server does not say where agents reach it:\n%s", server.said())
	}
	token, err := output(ctx, nil, l.path("trustcast"), "token", "create", "-q", "--data-dir", server.data)
	if err != nil {
		return nil, err
	}
	var fleet []*process
	for i := range agents {
		name := fmt.Sprintf("host-%d", i)
		p, err := l.start(name, program, []string{"TRUSTCAST_TOKEN=" + strings.TrimSpace(token)}, "run", "--join", address[1], "--name", name,
			"--data-dir", l.path(name), "--docker-certs-dir", l.path(name, "certs.d"), "--gossip-listen", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		fleet = append(fleet, p)
	}
	return fleet, server.until(ctx, "the server of trusted hosts", func() bool {
		list, err := output(ctx, nil, l.path("trustcast"), "host", "ls", "--data-dir", server.data)
		return err == nil && strings.Count(list, " trusted ") == agents
	})
}
