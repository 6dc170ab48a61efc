package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// least is the column of what nothing can be faster than, see floor.
const least = "floor"

// fleets under measurement: how many hosts, how many of them share a process, and the
// goal for their files.
var fleets = []struct {
	n, each int
	join    joiner
	files   float64 // ms
}{
	{20, 1, agentProcesses, 12},
	{100, 25, agentsTogether(25, "-watch=false"), 50},
	{1000, 1000, agentsTogether(1000, "-gossip", "off", "-watch=false"), 400},
}

// A rotation tells each host of four records (rotate, switch, retire, done), and a host
// shakes hands with the next chain and, once it is served, with that.
const (
	pushes = 4
	shakes = 2
)

// idleFor is one tick, in which each agent reports once.
const idleFor = 60 * time.Second

// propagation measures how long a new CA takes from the call of rotate to the last host
// of a fleet, and what the server works for it.
func propagation(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Propagation of a new CA: from the call of rotate to all hosts",
		subjects: []string{ours, least},
		unequal: []string{
			"the floor is a message down open streams over mutual TLS, and one write, sync and rename a host; ours makes and records a CA first, and each agent records what it trusts before it installs it. Its evidence is our files and a handshake a host, as measured beside it",
			"rotate is called over the server's socket; the start of the command is not in it, some ms, but is in the time of serf, ssh and Ansible",
			"20 hosts are 20 processes of trustcast-agent, 100 are four processes, 1,000 are one, without gossip; both without file watches, of which the kernel gives a user 128",
			fmt.Sprintf("the server's processor time for a push and its report is that of a whole rotation without %d handshakes a host, at the price measured beside it, in %d parts", shakes, pushes),
		},
	}
	for _, size := range fleets {
		if err := propagate(ctx, l, t, size.n, size.each, size.join, size.files); err != nil {
			return nil, fmt.Errorf("%d hosts: %w", size.n, err)
		}
	}
	return t, l.propagatePeers(ctx, t)
}

// propagate adds the rows and goals of one fleet, and ends it.
func propagate(ctx context.Context, l *lab, t *table, n, each int, join joiner, goal float64) (err error) {
	address, err := free()
	if err != nil {
		return err
	}
	server, err := l.trustcastAt(ctx, address, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.endAll()) }()
	before, err := server.memory()
	if err != nil {
		return err
	}
	f, err := l.fleetUnder(ctx, server, address, n, join)
	if err != nil {
		return err
	}
	defer f.close()
	bottom, err := l.floorOf(ctx, n, each)
	if err != nil {
		return err
	}
	defer bottom.close()

	hosts := strconv.Itoa(n) + " hosts: "
	files, evidence, work := t.filesRow(n), t.row(hosts+"last evidence", "ms"), t.row(hosts+"server's processor time a push and report", "µs")
	for range l.rounds {
		if err := propagateOnce(ctx, f, bottom, files, evidence, work); err != nil {
			return err
		}
	}
	t.atMost(hosts+"file in place on the last", files.of(ours), goal)
	t.atMost(hosts+"file, over the floor", files.against(least), 1.5)
	t.atMost(hosts+"evidence, over files and handshakes", evidence.against(least), 1.5)
	if n < 1000 {
		return nil // too little to measure
	}
	t.atMost(hosts+"server's processor time a push and report", work.of(ours), 150)
	return idleFleet(ctx, t, f, before, hosts)
}

func propagateOnce(ctx context.Context, f *fleet, bottom *floor, files, evidence, work *row) error {
	fastest, err := bottom.spread(ctx)
	if err != nil {
		return err
	}
	files.add(least, milliseconds(fastest))
	worked, err := restAll(ctx, append(f.processes, f.server.process)...)
	if err != nil {
		return err
	}
	s, err := f.rotate(ctx)
	if err != nil {
		return err
	}
	files.add(ours, milliseconds(s.files))
	evidence.add(ours, milliseconds(s.evidence))
	rested, err := f.server.rests(ctx)
	if err != nil {
		return err
	}
	took, err := f.shake(ctx)
	if err != nil {
		return err
	}
	shaken, err := f.server.rests(ctx)
	if err != nil {
		return err
	}
	evidence.add(least, milliseconds(s.files+took))
	n := time.Duration(len(f.files))
	work.add(ours, float64((rested-worked-shakes*(shaken-rested))/n/pushes)/float64(time.Microsecond))
	return f.quiet(ctx)
}

// idleFleet adds what the server works and keeps for hosts of which nothing is wanted.
func idleFleet(ctx context.Context, t *table, f *fleet, before memory, hosts string) error {
	began, err := f.server.rests(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idleFor):
	}
	ended, err := f.server.cpu()
	if err != nil {
		return err
	}
	share := t.row(hosts+"idle, the server's share of a core", "%")
	share.add(ours, 100*float64(ended-began)/float64(idleFor))
	t.atMost(hosts+"idle, the server's share of a core", share.of(ours), 0.1)
	after, err := f.server.memory()
	if err != nil {
		return err
	}
	t.row(hosts+"idle, the server's memory a host", "kB").add(ours, (after.anonymous-before.anonymous)/float64(len(f.files))/1e3)
	return nil
}

// atOnce keeps the processors busy with handshakes; more would only wait, and the edge
// hangs up on who waits for long.
const atOnce = 32

// shake shakes hands with the edge as often as there are hosts and returns how long
// that took.
func (f *fleet) shake(ctx context.Context) (time.Duration, error) {
	ca, err := os.ReadFile(f.files[0])
	if err != nil {
		return 0, err
	}
	dialer := &tls.Dialer{Config: &tls.Config{
		RootCAs: pool(ca), MinVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.CurveP256, tls.X25519}, // as agents do
	}}
	began := time.Now()
	var all errgroup.Group
	all.SetLimit(atOnce)
	for range f.files {
		all.Go(func() error {
			conn, err := dialer.DialContext(ctx, "tcp", f.server.address)
			if err != nil {
				return fmt.Errorf("shake hands with the edge: %w", err)
			}
			return conn.Close()
		})
	}
	err = all.Wait()
	return time.Since(began), err
}

// restAll waits for each of some processes, and returns what the last has worked so far.
// Agents write down for people what they have a second after they have it.
func restAll(ctx context.Context, all ...*process) (worked time.Duration, err error) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	for _, p := range all {
		if worked, err = p.rests(ctx); err != nil {
			return 0, err
		}
	}
	return worked, nil
}

// rests waits until the process does nothing to speak of, and returns what it has
// worked so far.
func (p *process) rests(ctx context.Context) (time.Duration, error) {
	const look, little = 100 * time.Millisecond, time.Millisecond
	before := -time.Hour
	for range 50 { // a server that never rests is measured as it is
		now, err := p.cpu()
		if err != nil || now-before < little {
			return now, err
		}
		before = now
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(look):
		}
	}
	return before, nil
}
