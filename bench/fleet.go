package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// fleet is a server of ours and hosts that trust its CA.
type fleet struct {
	server *contender
	admin  *operator
	// files are the installed CA, one a host; record is the server's own record of
	// the rotation.
	files  []string
	record string
	// processes of the agents.
	processes []*process
	watch     *landings
	close     func()
}

// joiner starts the agents of n hosts below dir and returns their processes. Host i
// is named hostName(i) and keeps certs.d in hostDir(dir, i).
type joiner func(ctx context.Context, l *lab, server *contender, dir string, n int) ([]*process, error)

func hostName(i int) string { return "host-" + strconv.Itoa(i) }

func hostDir(dir string, i int) string { return filepath.Join(dir, hostName(i)) }

// fleetOf starts a server and the agents of n hosts, and returns when all are
// trusted. Its registry can be reached by its name, so that agents prove all that
// they prove elsewhere. Call close.
func (l *lab) fleetOf(ctx context.Context, n int, join joiner) (*fleet, error) {
	address, err := free()
	if err != nil {
		return nil, err
	}
	server, err := l.trustcastAt(ctx, address, address)
	if err != nil {
		return nil, err
	}
	return l.fleetUnder(ctx, server, address, n, join)
}

// fleetUnder is fleetOf for a server that runs already, whose registry has a domain.
func (l *lab) fleetUnder(ctx context.Context, server *contender, domain string, n int, join joiner) (f *fleet, err error) {
	f = &fleet{server: server, record: filepath.Join(server.data, "state", "records", "authority.json")}
	dir := server.data + "-hosts"
	for i := range n {
		f.files = append(f.files, filepath.Join(hostDir(dir, i), "certs.d", domain, "ca.crt"))
	}
	admin, err := operate(server.data)
	if err != nil {
		return nil, err
	}
	f.admin = admin
	defer func() {
		if err != nil { // and f is nil
			admin.close() // the first error counts
		}
	}()
	if f.processes, err = join(ctx, l, server, dir, n); err != nil {
		return nil, err
	}
	if err := f.quiet(ctx); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, f.processes[0].said())
	}
	if f.watch, err = watchLandings(append([]string{f.record}, f.files...)...); err != nil {
		return nil, err
	}
	f.close = func() { _ = f.watch.close(); f.admin.close() } // nobody reads any more
	return f, nil
}

// quiet waits until no rotation runs and all hosts are trusted.
func (f *fleet) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		answer, err := f.admin.GetStatus(ctx, &pb.GetStatusRequest{})
		if err != nil {
			return fmt.Errorf("the fleet is not quiet: %w", err)
		}
		trusted := 0
		for _, h := range answer.GetStatus().GetHosts() {
			if h.GetState() == "trusted" && h.GetCovered() {
				trusted++
			}
		}
		if answer.GetStatus().GetRotation().GetPhase() == "idle" && trusted == len(f.files) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d hosts are trusted: %w", trusted, len(f.files), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// spread is how long a new CA took: from just before the call of rotate until the
// last host has the file in its place, synced, and until the server has the last
// evidence.
type spread struct{ files, evidence time.Duration }

// rotate rotates the CA, waits until the fleet is quiet again and says how long the
// first step, the one that brings the new CA, took.
//
// The switch is the server's answer to the last evidence, and is on its disk before
// anything follows from it: the record's second landing after the call's own is at
// most one write later than that evidence.
func (f *fleet) rotate(ctx context.Context) (spread, error) {
	f.watch.forget()
	began := time.Now()
	if _, err := f.admin.RotateCA(ctx, &pb.RotateCARequest{}); err != nil {
		return spread{}, fmt.Errorf("rotate: %w", err)
	}
	files, err := f.watch.last(ctx, 1, f.files...)
	if err != nil {
		return spread{}, err
	}
	evidence, err := f.watch.last(ctx, 2, f.record)
	if err != nil {
		return spread{}, err
	}
	return spread{files.Sub(began), evidence.Sub(began)}, f.quiet(ctx)
}

// agentProcesses joins one process of trustcast-agent a host.
func agentProcesses(ctx context.Context, l *lab, server *contender, dir string, n int) ([]*process, error) {
	return l.agentsOf(ctx, "trustcast-agent", nil, server, dir, n)
}

// agentsOf is agentProcesses for another build of it, with variables.
func (l *lab) agentsOf(ctx context.Context, name string, env []string, server *contender, dir string, n int) ([]*process, error) {
	program, err := l.program(ctx, name)
	if err != nil {
		return nil, err
	}
	address, token, err := l.invite(ctx, server)
	if err != nil {
		return nil, err
	}
	var all []*process
	for i := range n {
		host := hostDir(dir, i)
		p, err := l.start(hostName(i), program, append([]string{"TRUSTCAST_TOKEN=" + token}, env...), "run", "--join", address, "--name", hostName(i),
			"--data-dir", host, "--docker-certs-dir", filepath.Join(host, "certs.d"), "--gossip-listen", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// invite returns where agents join a server, and a token.
func (l *lab) invite(ctx context.Context, server *contender) (address, token string, err error) {
	found := grpcAddress.FindStringSubmatch(server.said())
	if found == nil {
		return "", "", fmt.Errorf("the server does not say where agents reach it:\n%s", server.said())
	}
	token, err = output(ctx, nil, l.path("trustcast"), "token", "create", "-q", "--data-dir", server.data)
	return found[1], strings.TrimSpace(token), err
}
