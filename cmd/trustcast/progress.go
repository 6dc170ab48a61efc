package main

import (
	"fmt"
	"slices"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// steps are the phases of a rotation that wait for hosts, in order.
var steps = []string{phaseStaged, phaseSwitched, phaseRetiring}

const skipped = "skipped"

// progress is what one rotation has shown so far, host by host. Statuses may
// leave out states that were passed quickly: a later phase implies that every
// host which was waited for had done the step before.
type progress struct {
	number uint64
	// phase is the last one seen; empty before the first status.
	phase string
	// late: the command joined a rotation under way, so the steps before the
	// first status are not its own to tell.
	late       bool
	rolledBack bool
	// decided: there was no way back any more, or it was taken. Before, a rollback may
	// pass unseen.
	decided bool
	// doneAt is the generation after the rotation, from the history; 0 if that was not
	// asked or does not say that it is done.
	doneAt uint64
	// hosts in the order of the status.
	hosts []string
	// done holds the elapsed time of each host's step.
	done map[string]map[string]time.Duration
	// told is the elapsed time of the last line.
	told time.Duration
	// passed holds the hosts that the rotation does not wait for, and why.
	passed map[string]string
}

// line is one change: a host's step, or the rotation's when host is empty.
type line struct {
	elapsed time.Duration
	phase   string
	host    string
	text    string
}

func newProgress(number uint64, started bool) *progress {
	return &progress{number: number, late: !started, done: map[string]map[string]time.Duration{}, passed: map[string]string{}}
}

// update takes the next status and returns what is new in it.
func (p *progress) update(s *pb.Status, elapsed time.Duration) []line {
	r := s.GetRotation()
	if r.GetNumber() != p.number {
		return nil // of another one
	}
	p.look(s)
	var lines []line
	first := p.phase == ""
	from := phaseIndex(p.phase)
	if first && p.late {
		from = phaseIndex(r.GetPhase())
	}
	for i := from; i <= phaseIndex(r.GetPhase()); i++ {
		if p.rolledBack && i < phaseIndex(phaseRetiring) {
			continue // a rollback retires without these steps
		}
		over := i < phaseIndex(r.GetPhase())
		if phase := phaseAt(i); first || i > from {
			lines = append(lines, line{elapsed, phase, "", p.heading(phase, s)})
		}
		if i < len(steps) {
			lines = append(lines, p.confirmations(steps[i], s, over, elapsed)...)
		}
	}
	p.phase = r.GetPhase()
	if len(lines) > 0 {
		p.told = elapsed
	}
	return lines
}

// read takes the rotation's course from the history.
func (p *progress) read(history []*pb.HistoryEntry) {
	for _, e := range history {
		switch {
		case e.GetRotation() != p.number:
		case e.GetEvent() == "rollback":
			p.rolledBack = true
		case e.GetEvent() == "done":
			p.doneAt = e.GetGeneration()
		}
	}
}

// waitTold is after how long without a line it is said who is waited for, and again.
const waitTold = 10 * time.Second

// waits returns whom the rotation waits for and why, when nothing else was said lately.
func (p *progress) waits(s *pb.Status, elapsed time.Duration) []line {
	if elapsed-p.told < waitTold || s.GetRotation().GetNumber() != p.number {
		return nil
	}
	var lines []line
	for _, text := range waitTexts(s) {
		lines = append(lines, line{elapsed, p.phase, "", text})
	}
	p.told = elapsed
	return lines
}

func waitTexts(s *pb.Status) []string {
	var texts []string
	for _, w := range s.GetRotation().GetWaitingFor() {
		texts = append(texts, fmt.Sprintf("waits for %s: %s; %s", w.GetHost(), w.GetReason(), w.GetAdvice()))
	}
	return texts
}

// look remembers who is there, and who is not waited for.
func (p *progress) look(s *pb.Status) {
	r := s.GetRotation()
	p.rolledBack = p.rolledBack || r.GetRollback()
	p.decided = p.decided || p.rolledBack || r.GetPhase() == phaseRetiring
	p.hosts = p.hosts[:0]
	for _, h := range s.GetHosts() {
		p.hosts = append(p.hosts, h.GetName())
		switch {
		case slices.Contains(r.GetSkipped(), h.GetName()), p.passed[h.GetName()] == skipped:
			p.passed[h.GetName()] = skipped // until the end, when the record has forgotten it
		case !h.GetPresent():
			p.passed[h.GetName()] = "gone"
		case !h.GetCovered() && r.GetMode() == modeCompromised:
			p.passed[h.GetName()] = "left behind"
		case !h.GetCovered():
			p.passed[h.GetName()] = "joining"
		default:
			delete(p.passed, h.GetName())
		}
	}
}

// confirmations of a step: of those that are not waited for any more, or of all
// when the step is over.
func (p *progress) confirmations(step string, s *pb.Status, over bool, elapsed time.Duration) []line {
	var lines []line
	for _, h := range s.GetHosts() {
		name := h.GetName()
		if _, done := p.done[name][step]; done || p.passed[name] != "" {
			continue
		}
		if !over && (waitedFor(s, name) || h.GetGeneration() != s.GetGeneration() || h.GetState() != stateTrusted) {
			continue
		}
		if p.done[name] == nil {
			p.done[name] = map[string]time.Duration{}
		}
		p.done[name][step] = elapsed
		lines = append(lines, line{elapsed, step, name, confirmed(step, p.rolledBack)})
	}
	return lines
}

func waitedFor(s *pb.Status, host string) bool {
	return slices.ContainsFunc(s.GetRotation().GetWaitingFor(), func(w *pb.WaitingFor) bool { return w.GetHost() == host })
}

func confirmed(step string, rollback bool) string {
	switch {
	case rollback:
		return "has the old CA alone again"
	case step == phaseStaged:
		return "trusts the old CA and the new one"
	case step == phaseSwitched:
		return "confirmed the new certificate"
	default:
		return "dropped the old CA"
	}
}

func (p *progress) heading(phase string, s *pb.Status) string {
	switch {
	case p.rolledBack && phase == phaseIdle:
		return fmt.Sprintf("rotation %d is rolled back: generation %d", p.number, s.GetGeneration())
	case p.rolledBack:
		return "the new CA is taken back"
	case phase == phaseStaged:
		return "every host gets the new CA beside the old one"
	case phase == phaseSwitched:
		return "the registry serves the new CA's certificate"
	case phase == phaseRetiring:
		return "the old CA is retired"
	default:
		return fmt.Sprintf("rotation %d is done: generation %d, served by %s", p.number, s.GetGeneration(), s.GetServing().GetIssuer())
	}
}

// phaseIndex orders the phases of one rotation; its end comes last.
func phaseIndex(phase string) int {
	switch phase {
	case "":
		return 0
	case phaseIdle:
		return len(steps)
	}
	return max(0, slices.Index(steps, phase))
}

func phaseAt(i int) string {
	if i < len(steps) {
		return steps[i]
	}
	return phaseIdle
}
