package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trustcast/trustcast/server/records"
)

// front is the edge of these tests: it notes what it is told.
type front struct {
	mu      sync.Mutex
	gate    string
	serving []string // IDs
	said    []string // in order
	drain   func(id string) error
	empty   func(context.Context) error
}

func (f *front) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, what)
}

func (f *front) set(gate string) func() {
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.gate = gate
		f.said = append(f.said, gate)
	}
}

func (f *front) look() (gate string, serving []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gate, slices.Clone(f.serving)
}

func (f *front) front() Front {
	return Front{
		Serve: func(replicas []Endpoint) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.serving = ids(replicas)
			f.said = append(f.said, "serve "+strings.Join(f.serving, " "))
		},
		Drain: func(_ context.Context, id string) error {
			f.note("drain " + id)
			if f.drain != nil {
				return f.drain(id)
			}
			return nil
		},
		Quiet: func(context.Context) error { f.note("quiet"); return nil },
		Empty: func(ctx context.Context) error {
			f.note("empty")
			if f.empty != nil {
				return f.empty(ctx)
			}
			return nil
		},
		Open: f.set("open"), HoldWrites: f.set("hold writes"), Hold: f.set("hold"), Refuse: f.set("refuse"),
	}
}

// site is a registry over a real embedded engine.
type site struct {
	t       *testing.T
	root    string
	store   *records.Store
	engine  *Embedded
	front   front
	life    *Registry
	stop    context.CancelFunc
	stopped chan struct{}
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, root: t.TempDir()}
	var err error
	s.store, err = records.Open(t.TempDir())
	must(t, err)
	s.engine, err = NewEmbedded(t.Context(), EmbeddedConfig{Root: s.root})
	must(t, err)
	s.run()
	return s
}

// run starts the registry as a server's start would, until the test or end ends it.
func (s *site) run() {
	s.t.Helper()
	s.front.set("none")()
	s.front.mu.Lock()
	s.front.serving = nil // an edge that starts serves nobody
	s.front.mu.Unlock()
	var err error
	s.life, err = Open(Config{Records: s.store, Engine: s.engine, Front: s.front.front(), Driver: Driver(s.engine.cfg.Parameters, s.root)})
	must(s.t, err)
	ctx, stop := context.WithCancel(s.t.Context())
	s.stop, s.stopped = stop, make(chan struct{})
	go func() {
		defer close(s.stopped)
		if err := s.life.Run(ctx); err != nil {
			s.t.Error(err)
		}
	}()
	s.t.Cleanup(s.end)
}

func (s *site) end() {
	s.stop()
	<-s.stopped
}

// until waits for a condition, which must come within seconds.
func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	for limit := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			gate, serving := s.front.look()
			s.t.Fatalf("never: %s (gate %s, serving %v, %+v)", what, gate, serving, s.life.View())
		}
	}
}

func (s *site) serves(n int) func() bool {
	return func() bool {
		_, serving := s.front.look()
		return len(serving) == n
	}
}

func (s *site) gated(want string) {
	s.t.Helper()
	if gate, _ := s.front.look(); gate != want {
		s.t.Errorf("the gate is %q, want %q", gate, want)
	}
}

func quiet(string) {}

func TestTheChosenStateSurvives(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	s.gated("open")

	must(t, s.life.Pause(quiet))
	s.gated("hold")
	s.end()
	s.run()
	s.gated("hold")
	if got := s.life.View().State; got != Paused {
		t.Errorf("after a restart: %s", got)
	}
	s.until("a paused registry has its replica", s.serves(1))
	must(t, s.life.Unpause(quiet))
	s.gated("open")

	must(t, s.life.Stop(t.Context(), quiet))
	s.gated("refuse")
	if !s.serves(0)() {
		t.Error("a stopped registry has a replica")
	}
	for what, err := range map[string]error{"pause": s.life.Pause(quiet), "unpause": s.life.Unpause(quiet)} {
		if !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "registry start") {
			t.Errorf("%s while it is stopped: %v", what, err)
		}
	}
	s.end()
	s.run()
	s.gated("refuse")
	must(t, s.life.Restart(t.Context(), quiet))
	s.gated("open")
	if !s.serves(1)() {
		t.Error("the registry was started and has no replica")
	}
}

// The new replica serves before the old one is drained, and the old one is
// forgotten before it is ended.
func TestRestartIsSeamless(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	_, before := s.front.look()
	s.front.mu.Lock()
	s.front.said = nil
	s.front.mu.Unlock()
	var steps []string
	must(t, s.life.Restart(t.Context(), func(step string) { steps = append(steps, step) }))
	_, after := s.front.look()
	if len(after) != 1 || after[0] == before[0] {
		t.Fatalf("serving %v, before %v", after, before)
	}
	// The old one is taken out, drained, then ended, which nobody waits for.
	s.until("the old replica ends", func() bool {
		alive, err := s.engine.Alive(t.Context(), before)
		return err == nil && len(alive) == 0
	})
	want := []string{"serve " + before[0] + " " + after[0], "serve " + after[0], "drain " + before[0]}
	s.front.mu.Lock()
	defer s.front.mu.Unlock()
	if !slices.Equal(s.front.said, want) {
		t.Errorf("the front was told %q, want %q", s.front.said, want)
	}
	if len(steps) < 3 {
		t.Errorf("steps %q", steps)
	}
}

// A caller that goes away does not cut a change short; the server's stop does.
func TestAChangeOutlivesItsCaller(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	caller, leave := context.WithCancel(t.Context())
	must(t, s.life.Restart(caller, func(string) { leave() }))
	if caller.Err() == nil {
		t.Fatal("the caller has not left")
	}
	if !s.serves(1)() {
		t.Error("the restart has no replica")
	}
}

// A client that takes its time keeps a replica alive, and nobody else waiting.
func TestASlowClientHoldsNobody(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	_, before := s.front.look()
	release := make(chan struct{})
	s.front.drain = func(id string) error {
		if id == before[0] {
			<-release
		}
		return nil
	}
	must(t, s.life.Restart(t.Context(), quiet))
	must(t, s.life.Restart(t.Context(), quiet))
	must(t, s.life.Stop(t.Context(), quiet)) // waits for those that served, not for those that left
	s.gated("refuse")
	if alive, err := s.engine.Alive(t.Context(), before); err != nil || len(alive) != 1 {
		t.Errorf("the replica with a slow client: %v, %v", alive, err)
	}
	close(release)
	s.until("it ends at last", func() bool {
		alive, err := s.engine.Alive(t.Context(), before)
		return err == nil && len(alive) == 0
	})
}

// Reads that no replica answers end before a stop says that it is done.
func TestStopWaitsForReads(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	asked, done := make(chan struct{}), make(chan struct{})
	s.front.empty = func(context.Context) error {
		close(asked)
		<-done
		return nil
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.life.Stop(t.Context(), quiet) }()
	select {
	case <-asked:
	case err := <-stopped:
		t.Fatalf("the front was not asked whether it is empty, and the stop ended: %v", err)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped while reads are in flight: %v", err)
	default:
	}
	s.gated("refuse")
	close(done)
	must(t, <-stopped)
}

// isStopped: nothing serves, and nothing would after a restart.
func (s *site) isStopped(when string) {
	s.t.Helper()
	if v := s.life.View(); v.State != Stopped || len(v.Replicas) > 0 || !s.serves(0)() {
		s.t.Errorf("%s: %+v", when, v)
	}
	s.gated("refuse")
}

// A start that has its turn before a stop has is undone by it, record and all.
func TestAStopAfterAStart(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	asked := false
	must(t, s.life.Stop(t.Context(), func(string) {
		if !asked { // the stop is chosen, and has no turn yet
			asked = true
			must(t, s.life.Start(t.Context(), quiet))
		}
	}))
	s.isStopped("after the stop")
}

// A stop that waits for the last requests says so when a start comes, and does not go on
// to wait for those that the started registry takes.
func TestAStopDuringAStart(t *testing.T) {
	for _, while := range []string{"replicas end", "reads are in flight"} {
		s := newSite(t)
		s.until("a replica serves", s.serves(1))
		if while == "replicas end" {
			s.front.drain = func(string) error { return s.life.Start(t.Context(), quiet) }
		} else {
			s.front.empty = func(ctx context.Context) error {
				must(t, s.life.Start(t.Context(), quiet))
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(20 * time.Second):
					return errors.New("it waits on")
				}
			}
		}
		said := ""
		err := s.life.Stop(t.Context(), func(step string) { said = step })
		if !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "started again meanwhile") || said == "the registry is stopped" {
			t.Errorf("while %s: %v, and the last word is %q", while, err, said)
		}
		s.until("the start is done", s.serves(1))
		if v := s.life.View(); v.State != Running {
			t.Errorf("while %s: %+v", while, v)
		}
		s.gated("open")
		s.end()
	}
}

// Requests that outlast a stop are told as what they are, with what to do.
func TestAStopThatTakesTooLong(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	s.front.empty = func(context.Context) error { return context.DeadlineExceeded }
	if err := s.life.Stop(t.Context(), quiet); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "registry stop") {
		t.Errorf("%v", err)
	}
	s.isStopped("after the stop")
}

// What was asked for before a stop and has its turn after it starts nothing.
func TestNoRestartOfWhatIsStopped(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	s.life.setBusy("something") // so that it is said that there is no turn yet
	err := s.life.Restart(t.Context(), func(step string) {
		if strings.HasPrefix(step, "waiting") {
			must(t, s.life.Stop(t.Context(), quiet))
		}
	})
	if !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "registry start") {
		t.Errorf("%v", err)
	}
	s.isStopped("after both")
}

func TestEmbeddedHasNoImage(t *testing.T) {
	s := newSite(t)
	if err := s.life.Upgrade(t.Context(), "registry:3", quiet); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "--engine docker") {
		t.Errorf("%v", err)
	}
}

// A replica that is gone is replaced without anybody's doing.
func TestADeadReplicaIsReplaced(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	_, before := s.front.look()
	must(t, s.engine.Close(t.Context(), before[0])) // as if it had ended by itself
	s.life.Nudge()
	s.until("another replica serves", func() bool {
		_, serving := s.front.look()
		return len(serving) == 1 && serving[0] != before[0]
	})
}

func TestLogsCanBeFollowed(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got sync.Map
	done := make(chan error, 1)
	go func() {
		done <- s.life.Logs(ctx, 0, true, func(id string, text []byte) error { got.Store(id, string(text)); return nil })
	}()
	_, serving := s.front.look()
	_, err := s.engine.said.Write([]byte("something is wrong\n"))
	must(t, err)
	s.until("the line arrives", func() bool { text, _ := got.Load(serving[0]); return text == "something is wrong\n" })
	cancel()
	must(t, <-done)
}
