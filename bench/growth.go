package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	// gossiping agents at most: memberlist keeps every member in each, about 195 B × N².
	gossiping = 500
	// perProcess agents at most: each takes up to three files, and a process may have
	// 20,000 here.
	perProcess = 2500
	// reportEvery is half of the default: one need not wait for long to see the idle
	// server, which has twice as much to do.
	reportEvery = 30 * time.Second
	// tenfold is what a figure may grow by when the fleet grows tenfold: no faster than
	// the fleet, with a tolerance for what a measurement is worth.
	tenfold = 12
)

// growth measures a rotation, the idle server and its memory as the fleet grows.
func growth(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title: "Growth: from 10 to 10,000 agents", sizes: []float64{10, 100, 1000, 10_000},
		unequal: []string{
			"the agents are real ones (agent.Run), up to 2,500 a process, on the server's machine: they take most of the processors that a rotation uses, which hosts of their own would not",
			"they reach the server over loopback, each from an address of its own, and not in memory: so the server is a process of its own, and its memory and processor time are its own",
			fmt.Sprintf("at most %d of them gossip, since memberlist keeps every member in each of them, and all but one of those at a tenth of the usual pace, since they share the processors", gossiping),
			"agents report every 30 s, twice as often as by default; what is idle is looked at once, for as long",
			"files are on tmpfs when there is one (an fsync costs nothing there), those of the floor too",
			"the floor is one message of the same size down warm streams, 100 a connection, and one durable file a host: no handshake, no certificate read, nothing recorded",
		},
	}
	for _, size := range t.sizes {
		t.subjects = append(t.subjects, fmt.Sprintf("%.0f", size))
	}
	for i, size := range t.sizes {
		if err := l.grow(ctx, t, t.subjects[i], int(size)); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			t.unequal = append(t.unequal, fmt.Sprintf("%s agents failed: %.300s", t.subjects[i], err))
		}
	}
	last := t.subjects[len(t.subjects)-1]
	files, floor := t.row(toFiles, "ms").of(last), t.row(toFloor, "ms").of(last)
	t.atMost(last+" agents, rotate to the last file", files, 1000)
	t.atMost(last+" agents, the same as a multiple of the floor", figure{ours: files.ours / floor.ours, peer: math.NaN(), unit: "×"}, 1.5)
	t.linear(toFiles, toEvidence, wholeRotation, serverTime, idleTime, serverMemory)
	return t, nil
}

const (
	toFiles = "rotate to the last file"
	toFloor = "floor: message and durable file"

	toEvidence, wholeRotation = "rotate to the last evidence", "whole rotation"
	serverTime, idleTime      = "server's processor, a rotation", "idle server's processor"
	serverMemory              = "server, resident"
)

// linear asks of rows that they grow no faster than the size.
func (t *table) linear(rows ...string) {
	for _, r := range t.rows {
		if !slices.Contains(rows, r.what) {
			continue
		}
		worst := 0.0
		for i := range t.subjects[1:] {
			before, after := r.median(t.subjects[i]), r.median(t.subjects[i+1])
			if before > 0 && !math.IsNaN(after) {
				worst = max(worst, after/before)
			}
		}
		if worst > 0 {
			t.atMost(r.what+": greatest growth for ten times the size", figure{ours: worst, peer: math.NaN(), unit: "×"}, tenfold)
		}
	}
}

// grow measures a fleet of one size.
func (l *lab) grow(ctx context.Context, t *table, subject string, size int) (err error) {
	f, err := l.growFleet(ctx, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.end()) }()
	for range max(1, min(l.rounds, 3, 3000/size)) {
		if err := f.rotate(ctx, t, subject); err != nil {
			return err
		}
		took, err := f.floor(ctx)
		if err != nil {
			return err
		}
		t.row(toFloor, "ms").add(subject, milliseconds(took))
	}
	return f.rest(ctx, t, subject)
}

// grown is a fleet of one size: a server, processes of agents, and one agent of its
// own, whose memory can be seen.
type grown struct {
	*lab
	size   int
	server *contender
	agents []*process
	single *process
	admin  *operator
}

// growFleet starts a server and its agents, and returns when all trust.
func (l *lab) growFleet(ctx context.Context, size int) (*grown, error) {
	fast, err := l.inMemory(ctx)
	if err != nil {
		return nil, err
	}
	f := &grown{lab: fast, size: size}
	if err := f.start(ctx); err != nil {
		return nil, errors.Join(err, f.end())
	}
	return f, nil
}

func (f *grown) start(ctx context.Context) (err error) {
	if f.server, err = f.trustcast(ctx, "--tick", reportEvery.String()); err != nil {
		return err
	}
	if f.admin, err = operate(f.server.data); err != nil {
		return err
	}
	address := regexp.MustCompile(`what=grpc address=(\S+)`).FindStringSubmatch(f.server.said())
	token, err := output(ctx, nil, f.path("trustcast"), "token", "create", "-q", "--data-dir", f.server.data)
	if err != nil || address == nil {
		return fmt.Errorf("no token, or no address: %w\n%s", err, f.server.said())
	}
	plan := fleetPlan{Dir: f.dir, Server: address[1], Registry: f.server.address, Token: strings.TrimSpace(token)}
	if err := f.startAgents(ctx, plan); err != nil {
		return err
	}
	return f.trusted(ctx)
}

// startAgents starts the processes one after the other, and then the agent of its own.
func (f *grown) startAgents(ctx context.Context, plan fleetPlan) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for many := f.size - 1; plan.First < many; plan.First += plan.Agents {
		plan.Gossip = plan.First == 0 // in a process of their own: they are busy with each other
		plan.Agents = min(perProcess, many-plan.First)
		if plan.Gossip {
			plan.Agents = min(gossiping-1, many)
		}
		raw, err := json.Marshal(plan)
		if err != nil {
			return err
		}
		p, err := f.lab.start(fmt.Sprintf("agents-%d", plan.First), self, []string{fleetVariable + "=" + string(raw)}, fleetVerb)
		if err != nil {
			return err
		}
		f.agents = append(f.agents, p)
		if err := p.patiently(ctx, "all installed", func() bool { return len(p.installed()) > 0 }); err != nil {
			return err
		}
	}
	program, err := f.program(ctx, "trustcast-agent")
	if err != nil {
		return err
	}
	f.single, err = f.lab.start("agent", program, []string{"TRUSTCAST_TOKEN=" + plan.Token}, "run", "--join", plan.Server, "--name", "single",
		"--data-dir", f.path("single"), "--docker-certs-dir", f.path("single", "certs.d"), "--gossip-listen", "127.0.0.1:0")
	return err
}

// trusted waits until the server has complete evidence of every host.
func (f *grown) trusted(ctx context.Context) error {
	log := &tail{process: f.server.process}
	return f.server.patiently(ctx, "the server of trusted hosts", func() bool {
		return strings.Count(log.more(), `msg="host covered"`) == f.size
	})
}

// installed is what a process of agents said so far.
func (p *process) installed() []fleetSaid {
	var all []fleetSaid
	for line := range strings.Lines(p.said()) {
		var said fleetSaid
		if json.Unmarshal([]byte(line), &said) == nil {
			all = append(all, said)
		}
	}
	return all
}

// rotationLine is what the server logs of a step.
var rotationLine = regexp.MustCompile(`time=(\S+) level=INFO msg=rotation phase=\S+ event=(\S+) rotation=(\d+) `)

// rotate measures one rotation.
func (f *grown) rotate(ctx context.Context, t *table, subject string) error {
	if _, err := restAll(ctx, f.agents...); err != nil {
		return err
	}
	before, err := f.spent()
	if err != nil {
		return err
	}
	log := f.server.fromNow()
	began := time.Now()
	made, err := f.admin.RotateCA(ctx, &pb.RotateCARequest{})
	if err != nil {
		return err
	}
	events := map[string]time.Time{}
	err = f.server.patiently(ctx, "the server of an ended rotation", func() bool {
		for _, found := range rotationLine.FindAllStringSubmatch(log.more(), -1) {
			if at, err := time.Parse(time.RFC3339, found[1]); err == nil && found[3] == fmt.Sprint(made.GetRotation()) {
				events[found[2]] = at
			}
		}
		return !events["done"].IsZero()
	})
	if err != nil {
		return err
	}
	last, err := f.lastFile(ctx, made.GetGeneration())
	if err != nil {
		return err
	}
	after, err := f.spent()
	if err != nil {
		return err
	}
	hosts := float64(f.size)
	t.row(toFiles, "ms").add(subject, milliseconds(last.Sub(began)))
	t.row(toEvidence, "ms").add(subject, milliseconds(events["switch"].Sub(began)))
	t.row(wholeRotation, "ms").add(subject, milliseconds(events["done"].Sub(began)))
	t.row(serverTime, "ms").add(subject, milliseconds(after.server-before.server))
	t.row("the same, a host", "µs").add(subject, 1000*milliseconds(after.server-before.server)/hosts)
	t.row("agents' processor, a host and rotation", "µs").add(subject, 1000*milliseconds(after.agents-before.agents)/hosts)
	return nil
}

// lastFile is when the last of the many agents had a generation durable.
func (f *grown) lastFile(ctx context.Context, generation uint64) (last time.Time, err error) {
	for _, p := range f.agents {
		err := p.patiently(ctx, "all installed", func() bool {
			i := slices.IndexFunc(p.installed(), func(s fleetSaid) bool { return s.Generation == generation })
			if i >= 0 && p.installed()[i].Last.After(last) {
				last = p.installed()[i].Last
			}
			return i >= 0
		})
		if err != nil {
			return last, err
		}
	}
	return last, nil
}

// spent is processor time so far.
type spent struct{ server, agents time.Duration }

func (f *grown) spent() (s spent, err error) {
	if s.server, err = f.server.cpu(); err != nil {
		return s, err
	}
	for _, p := range f.agents {
		ran, err := p.cpu()
		if err != nil {
			return s, err
		}
		s.agents += ran
	}
	return s, nil
}

// rest measures the fleet that does nothing but report.
func (f *grown) rest(ctx context.Context, t *table, subject string) error {
	before, err := f.server.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(reportEvery): // each agent reports once
	}
	after, err := f.server.cpu()
	if err != nil {
		return err
	}
	share := float64(after-before) / float64(time.Since(began))
	t.row(idleTime, "% of a core").add(subject, 100*share)
	server, err := f.server.memory()
	if err != nil {
		return err
	}
	t.row(serverMemory, "MiB").add(subject, megabytes(server.resident))
	t.row("server, anonymous", "MiB").add(subject, megabytes(server.anonymous))
	agent, err := f.single.memory()
	if err != nil {
		return err
	}
	t.row(fmt.Sprintf("one agent, resident (at most %d gossip)", gossiping), "MiB").add(subject, megabytes(agent.resident))
	t.row("one agent, anonymous", "MiB").add(subject, megabytes(agent.anonymous))
	return nil
}

// end ends all of it and removes its files. Nobody says goodbye: thousands would take
// their time, and nothing is kept.
func (f *grown) end() error {
	for _, p := range f.processes {
		_ = p.cmd.Process.Kill() // it may have ended
	}
	if f.admin != nil {
		f.admin.close()
	}
	return f.clear()
}

// inMemory is a lab like this one, on tmpfs when there is one.
func (l *lab) inMemory(ctx context.Context) (*lab, error) {
	dir, err := os.MkdirTemp("/dev/shm", "trustcast-bench-")
	if err != nil {
		if dir, err = os.MkdirTemp(l.dir, "growth-"); err != nil {
			return nil, err
		}
	}
	fast := &lab{dir: dir, rounds: l.rounds}
	for _, name := range []string{"trustcast", "trustcast-agent"} {
		program, err := l.program(ctx, name)
		if err == nil {
			err = os.Symlink(program, filepath.Join(dir, name))
		}
		if err != nil {
			return nil, errors.Join(err, fast.clear())
		}
	}
	return fast, nil
}
