package fleet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// Stream is an open Sync stream of a host.
type Stream struct {
	fleet *Fleet
	id    string
	wake  chan struct{} // one slot: send the newest wanted state
	ended chan struct{} // closed by Close or by a newer stream
	once  sync.Once
	// answered counts reports; guarded by Fleet.mu.
	answered int
}

// Attach makes a stream the host's newest. If an older one is open it is asked
// for a sign of life; when it answers within five seconds the new one is refused
// with ErrCloned, else it replaces it. Older evidence is void from here on only
// once the new stream reports. address is what people are told of a clone.
func (f *Fleet) Attach(ctx context.Context, id, address string) (*Stream, error) {
	s := &Stream{fleet: f, id: id, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	if f.Cloned(ctx, id, address) {
		return nil, ErrCloned
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.host(id)
	if h.stream != nil {
		h.stream.end()
	}
	h.stream = s
	return s, nil
}

// Cloned reports whether somebody at address who shows a host's identity is a
// second machine: the host's own stream gives a sign of life within five seconds of
// being asked. That is remembered for State.
func (f *Fleet) Cloned(ctx context.Context, id, address string) bool {
	f.mu.Lock()
	var s *Stream
	if h := f.hosts[id]; h != nil {
		s = h.stream
	}
	f.mu.Unlock()
	if s == nil || !s.answers(ctx) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.hosts[id]; h != nil { // nil: removed meanwhile
		h.cloned = Clone{At: time.Now(), Address: address}
	}
	return true
}

// answers wakes the stream and waits for a report on it.
func (s *Stream) answers(ctx context.Context) bool {
	before := s.reports()
	s.Wake()
	deadline := time.NewTimer(answerWithin)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.ended:
			return false
		case <-deadline.C:
			return false
		case <-look.C:
			if s.reports() > before {
				return true
			}
		}
	}
}

func (s *Stream) reports() int {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	return s.answered
}

// Wake asks for the newest wanted state to be sent.
func (s *Stream) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Woken is nudged when the newest wanted state shall be sent.
func (s *Stream) Woken() <-chan struct{} { return s.wake }

// Ended is closed when the stream must close: the host was removed or a newer
// stream took over.
func (s *Stream) Ended() <-chan struct{} { return s.ended }

func (s *Stream) end() { s.once.Do(func() { close(s.ended) }) }

// Close detaches the stream; the host's evidence ages from here on.
func (s *Stream) Close() {
	f := s.fleet
	f.mu.Lock()
	if h := f.hosts[s.id]; h != nil && h.stream == s { // nil: the host was removed
		h.stream = nil
		h.lastSign = time.Now()
		// Best effort: a lost "last seen" is an hour off at most.
		_ = f.put(s.id, h, h.known(h.lastSign))
	}
	f.mu.Unlock()
	s.end()
	f.cfg.Changed(s.id)
}

// Report takes a host's evidence, if the stream is its newest and the report is
// newer than the last one.
func (s *Stream) Report(e certs.Evidence, d Details) error {
	f := s.fleet
	now := time.Now()
	f.mu.Lock()
	h := f.hosts[s.id]
	if h == nil || h.stream != s {
		f.mu.Unlock()
		return errors.New("a newer stream of this host took over")
	}
	s.answered++
	h.lastSign = now
	h.details = d
	if h.evidence == nil || s.answered == 1 || e.NewerThan(*h.evidence) {
		h.evidence, h.received = &e, now
	}
	// Best effort, as in Close: evidence counts on a full disk too.
	_ = f.seen(s.id, h, now)
	f.mu.Unlock()
	f.cfg.Changed(s.id)
	return nil
}
