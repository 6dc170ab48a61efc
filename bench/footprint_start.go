package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// footprintStarts is how often each is started; a start takes milliseconds, and
	// their spread is large beside it.
	footprintStarts = 15
	// look is how often a start is looked at.
	look = 200 * time.Microsecond
)

// starts measures in turns how soon each listens, and how long joining takes, on a
// machine where nothing else of ours runs but a server.
func (l *lab) starts(ctx context.Context, t *table, running map[string][]*process) error {
	f, err := l.fleetOf(ctx, 0, agentProcesses)
	if err != nil {
		return err
	}
	defer f.close()
	for i := range footprintStarts {
		dir := l.path("start-" + strconv.Itoa(i))
		if err := f.joinOnce(ctx, l, t, dir); err != nil {
			return err
		}
		address, err := free()
		if err != nil {
			return err
		}
		if err := l.startOnce(ctx, t, agentProgram, address, l.path(agentProgram), "run", "--data-dir", dir, "--docker-certs-dir", filepath.Join(dir, "certs.d"), "--gossip-listen", address); err != nil {
			return err
		}
		for _, peer := range []string{serfProgram, nodeExporter} {
			if len(running[peer]) == 0 {
				continue
			}
			if address, err = free(); err != nil {
				return err
			}
			rpc, err := free()
			if err != nil {
				return err
			}
			args := []string{"agent", "-node", hostName(i), "-bind", address, "-rpc-addr", rpc}
			if peer == nodeExporter {
				args = []string{"--web.listen-address=" + address}
			}
			if err := l.startOnce(ctx, t, peer, address, peer, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// joinOnce joins a host with the command of `token create`.
func (f *fleet) joinOnce(ctx context.Context, l *lab, t *table, dir string) error {
	address, token, err := l.invite(ctx, f.server)
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := l.start("join", l.path(agentProgram), []string{"TRUSTCAST_TOKEN=" + token},
		"join", address, "--name", filepath.Base(dir), "--data-dir", dir, "--docker-certs-dir", filepath.Join(dir, "certs.d"))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "certs.d", f.server.address, "ca.crt")
	if err := p.soon(ctx, file+" there", func() bool { _, err := os.Stat(file); return err == nil }); err != nil {
		return err
	}
	installed := time.Since(began)
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("join: %w\n%s", err, p.said())
	}
	l.forget(p)
	t.row("join to installed CA", "ms").add(agentProgram, milliseconds(installed))
	t.row("join, to the end", "ms").add(agentProgram, milliseconds(time.Since(began)))
	return nil
}

// startOnce starts a program until it takes connections at an address.
func (l *lab) startOnce(ctx context.Context, t *table, subject, address, program string, args ...string) error {
	began := time.Now()
	p, err := l.start("start", program, nil, args...)
	if err != nil {
		return err
	}
	if err := p.soon(ctx, "listening at "+address, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close() // it was only to see
		return true
	}); err != nil {
		return err
	}
	t.row("start to listening", "ms").add(subject, milliseconds(time.Since(began)))
	l.forget(p)
	return p.end()
}

// soon is until for what takes milliseconds.
func (p *process) soon(ctx context.Context, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !ready() {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: not %s: %w\n%s", p.name, what, ctx.Err(), p.said())
		}
		time.Sleep(look)
	}
	return nil
}

// forget leaves a process to its caller, who has ended it or does so.
func (l *lab) forget(p *process) {
	for i, q := range l.processes {
		if p == q {
			l.processes = append(l.processes[:i], l.processes[i+1:]...)
			return
		}
	}
}
