package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// aliveEvery is how often the loops are asked for a sign of life at least, and
	// hungAfter how long one may be about something: a turn takes at most maxLull and
	// handshakesLimit, homes that hang twice install's patience, and a disk may be slow.
	aliveEvery = 5 * time.Second
	hungAfter  = time.Minute

	// A membership that failed is tried again so soon, and at least so often.
	failedFirst = time.Second
	failedMost  = 5 * time.Minute
	// heldFirst and heldMost are the same for one that a join has not let go of yet.
	heldFirst = 100 * time.Millisecond
	heldMost  = 2 * time.Second
)

// seat is a membership as the agent sees it: whether it is served, was tried, and lives.
// Its methods for the membership's loop do nothing on nil.
type seat struct {
	cfg    Config
	n      int    // 0 for the data directory itself, else which port of gossip
	stop   func() // lets go of it; done tells when
	look   func() // has the agent look
	called string // the registry, in a log
	first  bool   // it was there when the agent started

	tried chan struct{} // closed when its last-good state is on disk, or could not be put there
	try   sync.Once
	done  chan struct{} // closed when it is served no more and its lock is free

	pulse  chan struct{} // one slot, emptied by the loop
	loops  atomic.Bool   // there is one
	beaten time.Time     // when the slot was found empty; the agent's
}

func newSeat(cfg Config, n int, stop, look func()) *seat {
	return &seat{
		cfg: cfg, n: n, stop: stop, look: look, beaten: time.Now(),
		tried: make(chan struct{}), done: make(chan struct{}), pulse: make(chan struct{}, 1),
	}
}

// keep serves the membership until ctx ends. A failure is logged, shown and tried
// again; it is returned when there is no other membership.
func (s *seat) keep(ctx context.Context) error {
	defer s.look()
	defer close(s.done)
	defer s.settled()
	failed, held := pauses(failedFirst, failedMost), pauses(heldFirst, heldMost)
	for {
		began := time.Now()
		err := serve(ctx, s.cfg, s)
		if ctx.Err() != nil {
			return nil // stopped while it joined: the same line joins later
		}
		if s.cfg.left() {
			return nil // left between the agent's look and this
		}
		running := errors.Is(err, ErrRunning)
		if alone := s.alone(); alone && !running || alone && s.first {
			return err
		}
		if time.Since(began) > failedMost {
			failed.Reset() // it worked: this is a new failure
		}
		wait := held.NextBackOff()
		if !running { // else by the join that made it
			wait = failed.NextBackOff()
			s.failed(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func pauses(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, most
	return b
}

// alone: this host has no other membership.
func (s *seat) alone() bool {
	dirs, err := seats(s.cfg.base())
	if err != nil {
		return true
	}
	for _, dir := range dirs {
		if dir != s.cfg.DataDir {
			return false
		}
	}
	return true
}

// failed shows why the membership is not served now.
func (s *seat) failed(err error) {
	s.settled()
	s.cfg.Log.Error("this registry is not followed; the others are", "err", err)
	if !(store{s.cfg.DataDir}).has(identityFile) {
		return // not joined yet: nobody looks there
	}
	if bad := (store{s.cfg.DataDir}).write(statusFile, shownStatus{Format: stateFormat, Problem: err.Error()}); bad != nil {
		s.cfg.Log.Warn("status not written", "err", bad)
	}
}

func (s *seat) over() bool { return closed(s.done) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// beats asks the loop for a sign of life; false when it has not given one for too long.
func (s *seat) beats(now time.Time) bool {
	if !s.loops.Load() {
		s.beaten = now
		return true
	}
	select {
	case s.pulse <- struct{}{}:
		s.beaten = now
	default:
	}
	return now.Sub(s.beaten) < hungAfter
}

// looping is called by the membership's loop when it begins; the returned function when
// it ends.
func (s *seat) looping() (over func()) {
	if s == nil {
		return func() {}
	}
	select {
	case <-s.pulse: // of the loop before
	default:
	}
	s.loops.Store(true)
	return func() { s.loops.Store(false) }
}

func (s *seat) pulses() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.pulse
}

// settled: what there is to install is on disk, or was tried.
func (s *seat) settled() {
	if s != nil {
		s.try.Do(func() {
			close(s.tried)
			s.look()
		})
	}
}

// ticked: it is time for what is done slowly.
func (s *seat) ticked() {
	if s != nil {
		s.look()
	}
}
