package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// serfHandler writes what an event carries behind the certificate that is there, as
// durably as ours.
const serfHandler = `#!/bin/sh
cd "$1" && cat old.crt - >.ca.tmp && sync .ca.tmp && mv .ca.tmp ca.crt && sync .
`

// serf starts an agent for each host and one that events are given to, and returns
// when all see each other.
func (l *lab) serf(ctx context.Context, old []byte) (*spreader, error) {
	if err := l.debian(ctx, map[string]string{"serf": "serf"}); err != nil {
		return nil, err
	}
	dirs, err := l.hostDirs("serf", old)
	if err != nil {
		return nil, err
	}
	handler, config := l.path("serf", "handler"), l.path("serf", "config.json")
	if err := os.WriteFile(handler, []byte(serfHandler), 0o755); err != nil { //nolint:gosec // a script that serf runs
		return nil, err
	}
	// 512 bytes by default; a certificate is 826.
	if err := os.WriteFile(config, []byte(`{"user_event_size_limit": 1024}`), 0o600); err != nil {
		return nil, err
	}
	members := len(dirs) + 1
	addresses, err := freeAddresses(2 * members)
	if err != nil {
		return nil, err
	}
	gossip, admin := addresses[:members], addresses[members:]
	for i := range members {
		args := []string{"agent", "-config-file", config, "-node", fmt.Sprint("host-", i), "-bind", gossip[i], "-rpc-addr", admin[i], "-log-level", "err"}
		if i > 0 {
			args = append(args, "-retry-join", gossip[0], "-retry-interval", "1s", "-event-handler", "user:ca="+handler+" "+dirs[i-1])
		}
		p, err := l.start("serf", "serf", nil, args...)
		if err != nil {
			return nil, err
		}
		if err := p.listens(ctx, gossip[i]); err != nil {
			return nil, err
		}
	}
	for i, address := range admin {
		err := l.processes[len(l.processes)-members+i].until(ctx, "a member among all", func() bool {
			list, err := output(ctx, nil, "serf", "members", "-rpc-addr", address, "-status", "alive")
			return err == nil && strings.Count(list, "\n") == members
		})
		if err != nil {
			return nil, err
		}
	}
	return &spreader{
		dirs: dirs,
		spread: func(ctx context.Context, b caBundle) error {
			_, err := output(ctx, nil, "serf", "event", "-coalesce=false", "-rpc-addr", admin[0], "ca", string(b.new))
			return err
		},
		unequal: "serf's events carry one certificate, since two fit into none: its handler, a shell script, adds the one that is there; it runs at its defaults for a LAN, without encryption, with a greater -user-event-size-limit, and nobody learns who has the file",
	}, nil
}
