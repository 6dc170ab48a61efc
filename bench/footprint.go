package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

const (
	agentProgram = "trustcast-agent"
	serfProgram  = "serf"
	nodeExporter = "prometheus-node-exporter"

	// footprintHosts are the fleet of the footprint: each of its processes keeps all
	// members in memory and hears from them.
	footprintHosts = 100
	// footprintSerfs are fewer: its memory hardly grows with them.
	footprintSerfs = 20
	// footprintIdle is how long idle processes are watched: a tick, in which each reports.
	footprintIdle = 60 * time.Second
)

// footprint measures what a host pays for the agent: its size, its memory and its
// processor time when idle in a fleet, and how soon it is there; beside it what else
// people run on every host.
func footprint(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    fmt.Sprintf("Footprint: the agent in a fleet of %d", footprintHosts),
		subjects: []string{agentProgram, serfProgram, nodeExporter, ours},
		unequal: []string{
			"ours give the pages of their program back when they rest, which lowers resident memory and not the system's cache: anonymous memory is equal for all",
			fmt.Sprintf("memory is the median process's and processor time the mean of all, of %d agents, %d serfs, one node_exporter that nobody asks, and the server of the agents", footprintHosts, footprintSerfs),
			"listening is from exec to the first connection taken: on the agent's gossip port, serf's, and node_exporter's HTTP port; the agent has joined before",
			"join is `trustcast-agent join` from exec until ca.crt is in its place, and until the command has ended, the host proven; the others have nothing like it",
			"the agent holds a TLS stream to its server besides gossip, and both gossip as often; serf has a log and an RPC port",
			"Debian's programs are linked to the C library, which their size does not contain",
		},
	}
	f, err := l.fleetOf(ctx, footprintHosts, agentProcesses)
	if err != nil {
		return nil, err
	}
	defer f.close()
	running := map[string][]*process{agentProgram: f.processes, ours: {f.server.process}}
	if err := l.neighbours(ctx, running); err != nil {
		fmt.Fprintln(os.Stderr, "bench: the footprint has not all peers:", err)
		t.unequal = append(t.unequal, fmt.Sprintf("peers are missing: %v", err))
	}
	if err := t.addIdle(ctx, running); err != nil {
		return nil, err
	}
	if err := errors.Join(l.endAll(), t.addSizes(running)); err != nil {
		return nil, err
	}
	if err := l.starts(ctx, t, running); err != nil {
		return nil, err
	}
	t.footprintGoals()
	return t, nil
}

func (t *table) footprintGoals() {
	resident := t.row("resident", "MiB")
	anonymous := t.row("anonymous", "MiB")
	t.headline("An agent, idle in a fleet of %d, takes %s of the anonymous memory of a serf agent beside it, and %s of the resident.", footprintHosts,
		number(anonymous.median(agentProgram)/anonymous.median(serfProgram)), number(resident.median(agentProgram)/resident.median(serfProgram)))
	t.atMost("program", t.row("program, stripped", "MB").of(agentProgram), 11.5)
	t.atMost("resident memory", resident.of(agentProgram), 12)
	t.atMost("anonymous memory", anonymous.of(agentProgram), 3.5)
	t.atMost("idle processor time", t.row("idle", "% of a core").of(agentProgram), 0.05)
	t.atMost("start to listening", t.row("start to listening", "ms").of(agentProgram), 5)
	t.atMost("join to installed CA", t.row("join to installed CA", "ms").of(agentProgram), 100)
}

// neighbours starts the peers that can be had; the error says which cannot.
func (l *lab) neighbours(ctx context.Context, running map[string][]*process) error {
	var missing error
	for _, n := range []struct {
		name  string
		count int
	}{{serfProgram, footprintSerfs}, {nodeExporter, 1}} {
		if err := l.debian(ctx, map[string]string{n.name: n.name}); err != nil {
			missing = errors.Join(missing, err)
			continue
		}
		first := ""
		for i := range n.count {
			p, address, err := l.neighbour(ctx, n.name, i, first)
			if err != nil {
				return errors.Join(missing, err)
			}
			if running[n.name] = append(running[n.name], p); first == "" {
				first = address
			}
		}
	}
	return missing
}

// neighbour starts one process of a peer, serf as a member of the first one's fleet,
// and waits until it listens.
func (l *lab) neighbour(ctx context.Context, name string, i int, first string) (*process, string, error) {
	address, err := free()
	if err != nil {
		return nil, "", err
	}
	args := []string{"--web.listen-address=" + address}
	if name == serfProgram {
		rpc, err := free()
		if err != nil {
			return nil, "", err
		}
		args = []string{"agent", "-node", hostName(i), "-bind", address, "-rpc-addr", rpc, "-profile", "lan"}
		if first != "" {
			args = append(args, "-join", first)
		}
	}
	p, err := l.start(fmt.Sprintf("%s-%d", name, i), name, nil, args...)
	if err != nil {
		return nil, "", err
	}
	return p, address, p.listens(ctx, address)
}

// addIdle watches processes that have nothing to do: what each used meanwhile, and
// what it holds in the end.
func (t *table) addIdle(ctx context.Context, running map[string][]*process) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	before, began, err := ranOf(running)
	if err != nil {
		return err
	}
	if err := pause(ctx, footprintIdle); err != nil {
		return err
	}
	after, ended, err := ranOf(running)
	if err != nil {
		return err
	}
	for _, s := range t.subjects {
		var resident, anonymous, used []float64
		for i, p := range running[s] {
			m, err := p.memory()
			if err != nil {
				return err
			}
			resident, anonymous = append(resident, megabytes(m.resident)), append(anonymous, megabytes(m.anonymous))
			used = append(used, 100*float64(after[s][i]-before[s][i])/float64(ended.Sub(began)))
		}
		if len(used) == 0 {
			continue
		}
		t.row("resident", "MiB").add(s, median(resident))
		t.row("resident, the most", "MiB").add(s, slices.Max(resident))
		t.row("anonymous", "MiB").add(s, median(anonymous))
		t.row("idle", "% of a core").add(s, mean(used))
	}
	return nil
}

// ranOf is what each process has used so far, and when that was.
func ranOf(running map[string][]*process) (map[string][]time.Duration, time.Time, error) {
	used := map[string][]time.Duration{}
	for s, all := range running {
		for _, p := range all {
			ran, err := p.cpu()
			if err != nil {
				return nil, time.Time{}, err
			}
			used[s] = append(used[s], ran)
		}
	}
	return used, time.Now(), nil
}

// addSizes looks how large the programs are that ran.
func (t *table) addSizes(running map[string][]*process) error {
	for _, s := range t.subjects {
		if len(running[s]) == 0 {
			continue
		}
		path, err := exec.LookPath(running[s][0].cmd.Path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		t.row("program, stripped", "MB").add(s, float64(info.Size())/1e6)
	}
	return nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
