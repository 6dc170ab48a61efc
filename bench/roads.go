package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	faultyAgent = "trustcast-agent-faults"

	// partitioned is how long nobody reaches anybody: long enough for gossip to
	// take all for dead, and for the server's connections to end.
	partitioned = 20 * time.Second
)

// road is a way on which a new CA comes, or what stands in it.
type road struct {
	name string
	// faults are what the agents' build of tests does without.
	faults string
	// before gives the rules that hold when agents come, after those that hold
	// once all are trusted.
	before func(*contender) ([]string, error)
	after  []string
	// apart: the CA is rotated while nobody reaches anybody, and the time is from
	// the end of that.
	apart  bool
	rounds int
}

var allRoads = []road{
	{name: "all roads", rounds: 20},
	{name: "5 % of packets lost", after: []string{"-m statistic --mode random --probability 0.05 -j DROP"}, rounds: 10},
	{name: "stream alone", before: streamAlone, rounds: 20},
	{name: "gossip alone", faults: "no-stream,no-poll", rounds: 5},
	{name: "after a partition", apart: true, rounds: 2},
}

// streamAlone lets through what goes to the server's two TCP ports, and from them.
func streamAlone(server *contender) ([]string, error) {
	rules := []string{}
	for _, address := range []string{server.address, grpcAddress.FindStringSubmatch(server.said())[1]} {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		rules = append(rules, "-p tcp --dport "+port+" -j ACCEPT", "-p tcp --sport "+port+" -j ACCEPT")
	}
	return append(rules, "-j DROP"), nil
}

// roads measures how long a new CA takes to twenty hosts when something is in the way.
func roads(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Roads: a new CA on twenty hosts, with something in the way",
		subjects: []string{ours},
		unequal: []string{
			"gossip alone is a build of tests whose agents hold no stream and do not poll: a hint wakes them, and they dial",
			fmt.Sprintf("the partition is of %s; the CA is rotated at its beginning, and the time is from its end", partitioned),
		},
	}
	for _, r := range allRoads {
		t.row(r.name, "ms") // also when it stays empty
	}
	for _, r := range allRoads {
		times, err := r.travel(ctx, l)
		if err != nil && l.network == nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "bench: without roads: %v\n", err)
			t.unequal = append(t.unequal, "nothing is measured: "+err.Error())
			return t, nil
		}
		if err = errors.Join(err, l.leave()); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		for _, took := range times {
			t.row(r.name, "ms").add(ours, milliseconds(took))
		}
	}
	return t, nil
}

// travel rotates the CA of a fleet that has this road alone.
func (r road) travel(ctx context.Context, l *lab) (times []time.Duration, err error) {
	network, err := l.enter(ctx)
	if err != nil {
		return nil, err
	}
	f, err := l.fleetOf(ctx, spreadHosts, func(ctx context.Context, l *lab, server *contender, dir string, n int) ([]*process, error) {
		if r.before != nil {
			rules, err := r.before(server)
			if err != nil {
				return nil, err
			}
			if err := network.set(ctx, rules...); err != nil {
				return nil, err
			}
		}
		if r.faults == "" {
			return agentProcesses(ctx, l, server, dir, n)
		}
		return l.agentsOf(ctx, faultyAgent, []string{"TRUSTCAST_FAULTS=" + r.faults}, server, dir, n)
	})
	if err != nil {
		return nil, err
	}
	defer f.close()
	if r.after != nil {
		if err := network.set(ctx, r.after...); err != nil {
			return nil, err
		}
	}
	for range min(r.rounds, l.rounds) {
		took, err := r.once(ctx, f, network)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	return times, nil
}

func (r road) once(ctx context.Context, f *fleet, network *namespace) (time.Duration, error) {
	if !r.apart {
		s, err := f.rotate(ctx)
		return s.files, err
	}
	f.watch.forget()
	if err := network.set(ctx, "-j DROP"); err != nil {
		return 0, err
	}
	if _, err := f.admin.RotateCA(ctx, &pb.RotateCARequest{}); err != nil {
		return 0, fmt.Errorf("rotate: %w\n%s", err, f.server.said())
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(partitioned):
	}
	if err := network.set(ctx); err != nil {
		return 0, err
	}
	healed := time.Now()
	last, err := f.watch.last(ctx, 1, f.files...)
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, f.server.said())
	}
	if last.Before(healed) {
		return 0, errors.New("the files came through the partition")
	}
	return last.Sub(healed), f.quiet(ctx)
}
