package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// namespace is a network of its own, with nothing but a loopback, where rules hit
// nobody else. It has no name: it ends with the processes in it, whatever happens.
type namespace struct {
	holder *process
	rules  [][]string // that hold now
}

// enter makes a network in which the programs run that are started from now on,
// until leave.
func (l *lab) enter(ctx context.Context) (*namespace, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a network of its own needs root")
	}
	if err := l.debian(ctx, map[string]string{"iptables": "iptables", "iproute2": "ip", "util-linux": "nsenter"}); err != nil {
		return nil, err
	}
	holder, err := l.start("network", "unshare", nil, "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity")
	if err != nil {
		return nil, err
	}
	if err := holder.until(ctx, "ready", func() bool { return strings.Contains(holder.said(), "ready") }); err != nil {
		return nil, err
	}
	l.network = &namespace{holder: holder}
	return l.network, nil
}

// leave ends all that runs in the lab, and the network with it.
func (l *lab) leave() error {
	l.network = nil
	return l.endAll()
}

// command is one that runs in the network; without one, on the machine's.
func (n *namespace) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if n == nil {
		return exec.CommandContext(ctx, program, args...)
	}
	inside := []string{fmt.Sprintf("--net=/proc/%d/ns/net", n.holder.cmd.Process.Pid), program}
	return exec.CommandContext(ctx, "nsenter", append(inside, args...)...)
}

// set has these rules, and no others, hold for every packet.
func (n *namespace) set(ctx context.Context, rules ...string) error {
	for _, rule := range n.rules {
		if err := n.iptables(ctx, "--delete", rule); err != nil {
			return err
		}
	}
	n.rules = nil
	for _, rule := range rules {
		if err := n.iptables(ctx, "--append", strings.Fields(rule)); err != nil {
			return err
		}
		n.rules = append(n.rules, strings.Fields(rule))
	}
	return nil
}

func (n *namespace) iptables(ctx context.Context, verb string, rule []string) error {
	cmd := n.command(ctx, "iptables", slices.Concat([]string{"--wait", verb, "INPUT"}, rule)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
