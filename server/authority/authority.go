// Package authority owns the registry CA and its rotation.
//
// rotation.go is the state machine: a value and functions without clock, disk
// or network. authority.go drives it: it makes the certificates behind its
// numbers, writes the record before anything else happens, has the edge serve
// what the record says, takes a step when nobody is waited for any more, and
// renews by age. It knows hosts only by what they reported, and never talks to
// them: whoever announces watches the record.
package authority

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

// HostReport is what the fleet knows of a host.
type HostReport struct {
	ID, Name                  string
	Removed, Covered, Present bool
	// Connected: a stream is open.
	Connected bool
	// Generation is the newest that it was ever known to have.
	Generation uint64
	// Evidence of the newest stream, nil for none, and when it was received.
	Evidence *certs.Evidence
	Received time.Time
}

// Config introduces the authority to the rest of the server.
type Config struct {
	Records *records.Store
	Keys    *records.Keys
	// Names of the registry, the domain first; Subject of new CAs.
	Names   []certs.Name
	Subject pkix.Name
	// CALife and LeafLife of what is made from now on.
	CALife, LeafLife time.Duration
	// Tick is the hosts' report interval; Deadline is how long gone hosts are
	// waited for after each step.
	Tick, Deadline time.Duration
	// Window is when rotations by age may start; the zero value is always.
	Window Window
	// Hosts lists the fleet, Host is one of it; Cover and Uncover say durably
	// whether the promises cover a host.
	Hosts          func() []HostReport
	Host           func(id string) (HostReport, bool)
	Cover, Uncover func(id string) error
	// ClockOff says that this server's clock cannot be relied on: nothing happens
	// by time alone then. Nil: never.
	ClockOff func() bool
	// Publish makes the edge serve current and offer next (nil: nothing).
	Publish func(current, next map[string]*tls.Certificate) error
	// Announce is called after the edge took a changed record; it must not
	// block. Hosts that are told earlier would find the old chain.
	Announce func()
	Log      *slog.Logger
}

// Authority is the registry CA of one server.
type Authority struct {
	cfg   Config
	maker maker
	nudge chan struct{}
	heard heard
	began time.Time // when it was opened
	// looked is when Run last came round, in nanoseconds since began.
	looked atomic.Int64

	// wanted is derived from rec, and read by each stream while a step holds mu.
	wanted atomic.Pointer[Wanted]

	mu  sync.Mutex
	rec record
	rev uint64 // revision in the store

	serving   Serving   // what the edge was last given
	published uint64    // the Rotation.Rev of it; 0: nothing yet
	complaint string    // last error of Run, for status, and to log each only once
	held      []string  // whom the next step waited for last
	ready     time.Time // see View.Ready
	awaits    string    // whose report can bring the next step: an ID, anybody or nobody
	heeded    time.Time // when a claim to be further was looked into
	lens      lens
	// doomed are keys that the record forgot and that are still to be destroyed.
	doomed []records.KeyID
	// orphans are keys of records that could not be written.
	orphans []records.KeyID
}

// Create makes the first CA and its leaves and writes the record. It refuses to
// replace one.
func Create(cfg Config, now time.Time, by string) (certs.Bundle, error) {
	m := cfg.maker()
	ca, signer, leaves, err := m.newCA(1, now)
	if err != nil {
		return certs.Bundle{}, err
	}
	rec := record{Rotation: First(), CAs: []caRecord{ca}, Leaves: leaves}
	rec.note(Entry{Time: now, Event: "created", By: by, Detail: signer.Cert.Subject.CommonName})
	if _, err := cfg.Records.Put(recordName, 0, rec); err != nil {
		return certs.Bundle{}, fmt.Errorf("create registry CA: %w", err)
	}
	return rec.bundle()
}

func (cfg Config) maker() maker {
	return maker{keys: cfg.Keys, names: cfg.Names, subject: cfg.Subject, caLife: cfg.CALife, leafLife: cfg.LeafLife}
}

// Open loads the record and checks that its keys are there.
func Open(cfg Config) (*Authority, error) {
	a := &Authority{cfg: cfg, maker: cfg.maker(), nudge: make(chan struct{}, 1), began: time.Now()}
	rev, err := cfg.Records.Get(recordName, &a.rec)
	if err != nil {
		return nil, fmt.Errorf("open registry CA: %w", err)
	}
	a.rev = rev
	slices.Sort(a.rec.Rotation.Uncover) // that of an older server is not
	for _, id := range a.rec.keys() {
		if _, err := cfg.Keys.Signer(id); err != nil {
			return nil, fmt.Errorf("open registry CA: %w", err)
		}
	}
	w, err := a.rec.wanted()
	if err != nil {
		return nil, fmt.Errorf("open registry CA: %w", err)
	}
	a.wanted.Store(&w)
	return a, nil
}

// Keys returns the private keys that the record names.
func (a *Authority) Keys() []records.KeyID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.keys()
}

// Run has the edge serve the record, takes each step that is due and renews by
// age, until ctx ends. An error of the world (a full disk) is logged and tried
// again; it never ends Run.
func (a *Authority) Run(ctx context.Context) error {
	for {
		again, err := a.step(time.Now())
		a.complain(err)
		a.looked.Store(int64(time.Since(a.began)))
		if again && err == nil {
			continue
		}
		if !a.rest(ctx) {
			return nil
		}
	}
}

// A rotation under way looks at its clocks lookShare times a tick, every second
// at most: deadlines, gone-after and the age of evidence pass without a nudge.
const (
	lookLeast = time.Second
	lookShare = 60
)

// Looked is when Run last came round: within half a tick while it is well. Before its
// first look it is when the record was opened. It waits for nobody.
func (a *Authority) Looked() time.Time { return a.began.Add(time.Duration(a.looked.Load())) }

// pause is how long Run may wait for a nudge. The tick alone would be too seldom
// for a leaf that lives shorter than it.
func (a *Authority) pause() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := min(a.cfg.Tick/2, a.untilRenewal(time.Now()))
	if a.rec.Rotation.Phase != Idle {
		return min(max(lookLeast, a.cfg.Tick/lookShare), wait)
	}
	return wait
}

// step does the one next thing; again: there may be more.
func (a *Authority) step(now time.Time) (again bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.awaits = anybody // until this look has come to its end
	if err := a.destroy(); err != nil {
		return false, err
	}
	if err := a.publish(); err != nil {
		return false, err
	}
	v := a.view(now)
	before := a.rec.Rotation
	if len(before.Uncover) > 0 {
		return true, a.uncover(now)
	}
	if err := a.cover(v); err != nil {
		return false, err
	}
	if faulty("no-gate") {
		v.Hosts = nil
	}
	a.ready = before.readySince(a.ready, v)
	v.Ready = a.ready
	if next := before.Advance(v); next.Rev != before.Rev {
		return true, a.change(next, now, cause(before, v), wentOnWithout(before, next, v))
	}
	waits := before.Waiting(v)
	if len(waits) > 0 {
		a.held = hostsOf(waits)
	}
	if before.superseded(v) {
		return false, errors.New(before.Frozen(v))
	}
	again, err = a.renew(v)
	if !again && err == nil {
		a.awaits = awaited(waits)
	}
	return again, err
}

// hostsOf names whom a step waits for, bounded.
func hostsOf(waits []Wait) []string {
	var names []string
	for _, w := range waits[:min(len(waits), maxNamed)] {
		names = append(names, w.Host)
	}
	return names
}

// uncover makes the hosts' own records say what the rotation decided.
func (a *Authority) uncover(now time.Time) error {
	r := a.rec.Rotation
	for _, id := range r.Uncover {
		if err := a.cfg.Uncover(id); err != nil {
			return fmt.Errorf("uncover host %s: %w", id, err)
		}
	}
	a.cfg.Log.Warn("hosts are not covered until they come back", "count", len(r.Uncover), "rotation", r.Number)
	return a.change(r.Uncovered(), now, "evidence", "")
}

func (a *Authority) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if text != a.complaint && text != "" {
		a.cfg.Log.Error("rotation is stuck", "err", text)
	}
	a.complaint = text
}

// Rotate starts a rotation, and says which; refused, that which is under way
// or was last.
func (a *Authority) Rotate(by string, s Start) (number, generation uint64, err error) {
	s = a.patient(s)
	err = a.event(by, "", func(v View) (Rotation, error) {
		next, err := a.rec.Rotation.begin(v, s)
		which := next
		if err != nil {
			which = a.rec.Rotation
		}
		number, generation = which.Number, which.Generation
		return next, err
	})
	return number, generation, err
}

// patient fills in how long gone hosts are waited for; a theft has its own time.
func (a *Authority) patient(s Start) Start {
	switch {
	case s.Patience != 0:
	case s.Compromised:
		s.Patience = compromisedPatience
	default:
		s.Patience = a.cfg.Deadline
	}
	return s
}

// Plan says what Rotate would do now; nothing changes. skip are host IDs.
func (a *Authority) Plan(s Start, skip []string) Plan {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.Rotation.Plan(a.view(time.Now()), a.patient(s), skip)
}

// Skip passes over a host for the rest of the rotation under way.
func (a *Authority) Skip(by, id, name string) error {
	return a.event(by, name, func(View) (Rotation, error) { return a.rec.Rotation.Skip(id) })
}

// Wait sets how long gone hosts are waited for in the rotation under way.
func (a *Authority) Wait(by string, patience time.Duration) error {
	return a.event(by, patience.String(), func(v View) (Rotation, error) { return a.rec.Rotation.Wait(v, patience) })
}

// Rollback takes a rotation back, if that is possible.
func (a *Authority) Rollback(by string) error {
	return a.event(by, "", func(v View) (Rotation, error) { return a.rec.Rotation.TakeBack(v) })
}

// ServeNow opens the edge after a restore without waiting for hosts, and returns when it
// serves.
func (a *Authority) ServeNow(by string) error {
	err := a.event(by, "", func(v View) (Rotation, error) { return a.rec.Rotation.ServeNow(v) })
	if err != nil {
		return err
	}
	if err := a.Publish(); err != nil {
		return fmt.Errorf("the wait after the restore is over, but the registry serves nobody yet and goes on trying: %w", err)
	}
	return nil
}

// event lets one event happen and wakes Run, which does what follows from it.
func (a *Authority) event(by, detail string, happen func(View) (Rotation, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.Nudge()
	now := time.Now()
	next, err := happen(a.view(now))
	if err != nil || next.Rev == a.rec.Rotation.Rev {
		return err
	}
	return a.change(next, now, by, detail)
}
