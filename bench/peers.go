package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// otherWay is a peer: another way to bring a file to hosts.
type otherWay struct {
	name   string
	start  func(*lab, context.Context, []byte) (*spreader, error)
	rounds int     // at most; what takes seconds needs few to show a ratio in hundreds
	ratio  float64 // goal: it takes so many times as long as ours; 0: none
}

var spreaders = []otherWay{
	{"serf", (*lab).serf, 20, 30},
	{"ssh in parallel", (*lab).ssh, 3, 0},
	{"Ansible", (*lab).ansible, 2, 1000},
}

// filesRow is how long a fleet of so many hosts takes to have the file.
func (t *table) filesRow(hosts int) *row {
	return t.row(fmt.Sprintf("%d hosts: file in place on the last", hosts), "ms")
}

// propagatePeers adds those who bring the file to as many hosts as our smallest
// fleet, one after the other, since each keeps dozens of processes. A peer that
// cannot be had is left out, and its goal is missed.
func (l *lab) propagatePeers(ctx context.Context, t *table) error {
	old, err := l.newCA(ctx)
	if err != nil {
		return err
	}
	files := t.filesRow(spreadHosts)
	for _, peer := range spreaders {
		t.subjects = append(t.subjects, peer.name)
		unequal, err := l.propagatePeer(ctx, peer, old, files)
		if err = errors.Join(err, l.endAll()); err != nil {
			return fmt.Errorf("%s: %w", peer.name, err)
		}
		t.unequal = append(t.unequal, unequal)
		if peer.ratio > 0 {
			t.atMost(fmt.Sprintf("%d hosts: file, %.0f× as fast as %s", spreadHosts, peer.ratio, peer.name), files.against(peer.name), 1/peer.ratio)
		}
	}
	faster := func(peer string) string { return number(1 / files.against(peer).ratio()) }
	t.headline("A new CA is on %d hosts %s times as fast as with Ansible, %s times as fast as with ssh in parallel, %s times as fast as with serf.", spreadHosts, faster("Ansible"), faster("ssh in parallel"), faster("serf"))
	return nil
}

func (l *lab) propagatePeer(ctx context.Context, peer otherWay, old []byte, files *row) (unequal string, err error) {
	s, err := peer.start(l, ctx, old)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		fmt.Fprintf(os.Stderr, "bench: without %s: %v\n", peer.name, err)
		return fmt.Sprintf("%s is not there: %v", peer.name, err), nil
	}
	for range min(peer.rounds, l.rounds) {
		latest, err := l.newCA(ctx)
		if err != nil {
			return "", err
		}
		took, err := s.once(ctx, caBundle{old, latest})
		if err != nil {
			return "", err
		}
		files.add(peer.name, milliseconds(took))
	}
	return s.unequal, nil
}
