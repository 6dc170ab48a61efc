package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/records"
)

// States of a check.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// findings are the checks of one examination, in their order.
type findings struct{ checks []*pb.Check }

func (f *findings) ok(id, subject, text string) { f.add(id, checkOK, subject, text, "") }

// warn: it works, and somebody should do something about it.
func (f *findings) warn(id, subject, text, fix string) { f.add(id, checkWarn, subject, text, fix) }

// fail: something does not work.
func (f *findings) fail(id, subject, text, fix string) { f.add(id, checkFail, subject, text, fix) }

func (f *findings) add(id, state, subject, text, fix string) {
	f.checks = append(f.checks, &pb.Check{Id: id, State: state, Subject: subject, Text: text, Fix: fix})
}

// advised splits a sentence of this program, "what; what to do" or "what: what to do".
func advised(line string) (text, fix string) {
	for _, mark := range []string{"; ", ": "} {
		if at := strings.LastIndex(line, mark); at >= 0 {
			return line[:at], line[at+len(mark):]
		}
	}
	return line, ""
}

// counted says "1 user" or "5 users".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Examine says how a running server and its fleet are, for `trustcast doctor`. It takes
// seconds at most, and changes nothing.
func (a *adminAPI) Examine(ctx context.Context, _ *pb.ExamineRequest) (*pb.ExamineResponse, error) {
	n, f := a.node, &findings{}
	f.ok("server.running", "", fmt.Sprintf("version %s serves %s since %s", n.cfg.Version, n.names[0], n.started.UTC().Format(time.DateTime+" MST")))
	n.examineLoops(ctx, f)
	examineData(n.layout, n.cfg, f)
	state, err := n.authority.State()
	if err != nil {
		return nil, reply(err)
	}
	if n.oldKeyLeft() {
		f.warn("state.permissions", n.layout.oldKey(), n.layout.oldKey()+" is the key of the certificate that was adopted and is served no more", "delete it")
	}
	n.examinePorts(ctx, f)
	n.examineEngine(f)
	n.examineRotation(state, f)
	n.examineHosts(f)
	return &pb.ExamineResponse{Checks: f.checks}, nil
}

func (n *node) examineLoops(ctx context.Context, f *findings) {
	if err := n.alive(ctx); err != nil {
		f.fail("server.loops", "", err.Error(), "start the server again, and keep its log: this is a mistake in trustcast")
	}
	if len(n.cfg.Sockets) > 0 {
		f.ok("server.sockets", "", "systemd holds the sockets: a restart refuses no connection")
	} else {
		f.ok("server.sockets", "", "the server opens its ports itself: a restart refuses connections for a moment (the systemd units hold them meanwhile)")
	}
}

// ExamineStopped says what the data directory of cfg and this machine tell while no
// server answers there; why is that error. It takes no lock and changes nothing.
func ExamineStopped(ctx context.Context, cfg Config, why error) ([]*pb.Check, error) {
	f, l := &findings{}, layout{cfg.DataDir}
	text, fix := advised(why.Error())
	if pid := lockedBy(l); pid != 0 {
		text, fix = fmt.Sprintf("process %d has the data directory and answers nobody (%s)", pid, text), "look at its log; it may be starting or stopping, or hang"
	}
	f.fail("server.running", "", "the server is not running: "+text, fix)
	s, made, err := readSite(cfg.DataDir)
	if err != nil {
		text, fix := advised(err.Error())
		f.fail("state.records", "", text, fix)
		return f.checks, nil
	}
	if !made {
		f.fail("state.records", "", cfg.DataDir+" holds no registry", "make one with `trustcast init --domain HOST[:PORT]`, restore one with `trustcast restore FILE`, or name its directory with --data-dir")
		return f.checks, nil
	}
	cfg = cfg.keep(s).withDefaults().withLives()
	examineData(l, cfg, f)
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	examineFreePorts(cfg, names[0], f)
	examineStoppedEngine(ctx, cfg, f)
	return f.checks, nil
}

// examineRotation: what runs, whom it waits for, and what keeps it.
func (n *node) examineRotation(state authority.State, f *findings) {
	r := state.Rotation
	if state.Frozen != "" {
		text, fix := advised(state.Frozen)
		f.fail("rotation.frozen", "", text, fix)
	}
	if state.Stuck != "" && state.Stuck != state.Frozen {
		f.fail("rotation.stuck", "", "the server is stuck and tries again: "+state.Stuck, "mend that here; it goes on by itself")
	}
	if r.Phase == authority.Idle {
		f.ok("rotation.phase", "", fmt.Sprintf("no rotation runs; generation %d", state.Bundle.Generation))
		return
	}
	late := !r.Deadline.IsZero() && time.Now().After(r.Deadline)
	f.ok("rotation.phase", "", fmt.Sprintf("rotation %d is %s since %s, and waits for %s", r.Number, r.Phase, r.Started.UTC().Format(time.DateTime+" MST"), counted(len(state.Waiting), "host")))
	for i, w := range state.Waiting {
		if i == mostHosts {
			f.warn("rotation.waiting", "", fmt.Sprintf("and %d more", len(state.Waiting)-i), "`trustcast status` lists them")
			break
		}
		add := f.warn
		if late {
			add = f.fail
		}
		add("rotation.waiting", w.Host, w.Host+" "+w.Reason, w.Advice)
	}
}

// mostHosts bounds the lines about hosts.
const mostHosts = 20

// examineHosts: who lags, whose identity is not renewed, who is cloned, and clocks.
func (n *node) examineHosts(f *findings) {
	hosts, bad := n.identity.Hosts(), 0
	verdicts := n.authority.Verdicts()
	for _, h := range hosts {
		s := hostStatus(h, n.fleet.State(h.ID), verdicts[h.ID])
		if s.GetState() == "trusted" {
			continue
		}
		if bad++; bad > mostHosts {
			continue
		}
		text := fmt.Sprintf("%s is %s, with generation %d", h.Name, s.GetState(), s.GetGeneration())
		if s.GetProblem() != "" {
			text += ": " + s.GetProblem()
		}
		switch s.GetState() {
		case "gone":
			f.warn("hosts.host", h.Name, text, "start its agent, or remove it with `trustcast host rm "+h.Name+"`; until then it pulls with the CA that it has")
		case "refused", "failed":
			f.fail("hosts.host", h.Name, text, "run `trustcast-agent doctor` there")
		default:
			f.warn("hosts.host", h.Name, text, "wait a moment; if it stays, run `trustcast-agent doctor` there")
		}
	}
	switch {
	case len(hosts) == 0:
		f.ok("hosts.fleet", "", "no hosts yet; `trustcast token create` prints the line that joins one")
	case bad > mostHosts:
		f.warn("hosts.fleet", "", fmt.Sprintf("%d more of %d hosts are not trusted", bad-mostHosts, len(hosts)), "`trustcast host ls` lists them")
	default:
		f.ok("hosts.fleet", "", fmt.Sprintf("%d of %d hosts are trusted", len(hosts)-bad, len(hosts)))
	}
	if line, _ := n.lateHosts(hosts, time.Now()); line != "" {
		text, fix := advised(line)
		f.warn("hosts.identities", "", text, fix)
	}
	for _, line := range n.cloneWarnings() {
		text, fix := advised(line)
		f.fail("hosts.clones", "", text, fix)
	}
	n.examineClock(f)
}

// clockNotable is a difference that mends itself by no protocol, and breaks nothing yet.
const clockNotable = time.Minute

func (n *node) examineClock(f *findings) {
	switch off, paused := n.clockOff(); {
	case paused:
		text, fix := advised(pausedText(off, paused))
		f.fail("clock.skew", "", text, fix)
	case off.Abs() > clockNotable:
		f.warn("clock.skew", "", fmt.Sprintf("this server's clock is %s off its hosts'", off.Abs().Round(time.Second)), "set up time synchronisation here (`timedatectl`), then on the hosts")
	default:
		f.ok("clock.skew", "", "the clock agrees with the hosts' that report")
	}
}

// examineEngine: what answers for the registry.
func (n *node) examineEngine(f *findings) {
	v, failing := n.registry.View(), 0
	for _, e := range n.edge.Load() {
		if e.Problem != "" {
			failing++
			f.warn("engine.replica", e.ID, fmt.Sprintf("replica %s fails: %s", e.ID, e.Problem), "`trustcast registry logs` says more; it is replaced by itself")
		}
	}
	err := n.engineAnswers()
	switch lines := n.registryWarnings(); {
	case err == nil && len(lines) == 0:
		f.ok("engine.up", v.Engine, fmt.Sprintf("the %s engine answers with %d of %d replicas", v.Engine, len(v.Replicas)-failing, v.Wanted))
	case len(lines) > 0:
		text, fix := advised(lines[0])
		add := f.fail
		if err == nil {
			add = f.warn // the old replicas answer
		}
		add("engine.up", v.Engine, text, orDefault(fix, "`trustcast registry status` says more"))
	default:
		f.fail("engine.up", v.Engine, "pulls wait or fail: "+err.Error(), "`trustcast registry status` and `trustcast registry logs` say more")
	}
}

// recordsProblem is an error of reading records in two parts.
func recordsProblem(err error) (text, fix string) {
	if errors.Is(err, records.ErrNotFound) {
		return err.Error(), "restore the state directory from a backup with `trustcast restore FILE`"
	}
	return advised(err.Error())
}
