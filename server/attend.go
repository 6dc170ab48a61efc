package server

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Supervisor is who started this process and wants to hear how it is; the command tells
// systemd. The zero value hears nothing.
type Supervisor struct {
	// Ready is called once, when all ports are served, with a line on how it is.
	Ready func(status string)
	// Status is called with that line when it changed, seconds later.
	Status func(status string)
	// Stopping is called when requests in flight begin to end.
	Stopping func()
	// Alive is called each Every, and no more once a loop or a part of the server hangs.
	// Nil: nobody watches.
	Alive func()
	Every time.Duration
}

const (
	// statusEvery is how soon a supervisor hears of a change: people read it.
	statusEvery = 10 * time.Second
	// answerLimit is how long a part may take to answer; a slow disk takes seconds.
	answerLimit = 10 * time.Second
	// loopLimit is how long the rotation's loop may be late, beside its own pause.
	loopLimit = time.Minute
)

// attend answers who asks whether the server is alive, and tells the supervisor, until
// done is closed. It is one of the loops itself: where it hangs nobody hears that it does
// not.
func (n *node) attend(done <-chan struct{}) error {
	s := n.cfg.Supervisor
	every, said := time.Duration(0), ""
	switch {
	case s.Alive != nil && s.Every > 0:
		every = s.Every
	case s.Status != nil:
		every = statusEvery
	}
	var tick <-chan time.Time // nil: nobody is to be told
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-done:
			return nil
		case answered := <-n.asked:
			n.touchAll()
			close(answered)
		case <-tick:
			n.touchAll()
			if s.Alive != nil && n.loopsRun() == nil {
				s.Alive()
			}
			if line := n.statusLine(); s.Status != nil && line != said {
				s.Status(line)
				said = line
			}
		}
	}
}

// touchAll returns when each part has answered something for which it takes its lock.
func (n *node) touchAll() {
	n.store.List(siteRecord)
	n.identity.Revision()
	n.fleet.State("")
	n.authority.Settled()
	n.registry.View()
	n.edge.Load()
}

// alive says what hangs: a part, or the loop that rotates and renews.
func (n *node) alive(ctx context.Context) error {
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	hang := fmt.Errorf("a part of the server gave no answer within %s", answerLimit)
	answered := make(chan struct{})
	select {
	case n.asked <- answered:
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return hang
	}
	select {
	case <-answered:
		return n.loopsRun()
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return hang
	}
}

// loopsRun says whether the rotation's loop came round lately; while the server stops, it
// has ended.
func (n *node) loopsRun() error {
	late := time.Since(n.authority.Looked())
	if n.goesOn() == nil && late > n.cfg.Tick+loopLimit {
		return fmt.Errorf("the loop that rotates and renews did not come round for %s", late.Round(time.Second))
	}
	return nil
}

// statusLine is the server in one line.
func (n *node) statusLine() string {
	state, err := n.authority.State()
	if err != nil {
		return err.Error()
	}
	line := fmt.Sprintf("%s, generation %d, rotation %s", n.names[0], state.Bundle.Generation, state.Rotation.Phase)
	if len(state.Waiting) > 0 {
		line += fmt.Sprintf(" (waits for %d)", len(state.Waiting))
	}
	present := 0
	hosts := n.identity.Hosts()
	for _, h := range hosts {
		if n.fleet.State(h.ID).Present {
			present++
		}
	}
	line += fmt.Sprintf(", %d of %d hosts present", present, len(hosts))
	if err := errors.Join(n.certificatesServed(), n.engineAnswers()); err != nil {
		line += ": " + err.Error()
	}
	return line
}
