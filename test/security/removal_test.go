package security

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// TestRemovedHostIsCutOff: each of its streams ends within a second, and no
// state reaches it any more.
func TestRemovedHostIsCutOff(t *testing.T) {
	simulate(t, func(w *world) {
		removed, kept := w.rawHost("removed"), w.rawHost("kept")
		attached := w.sync(&removed.pair)
		attached.report(&pb.Report{})
		attached.wanted()
		silent := w.sync(&removed.pair) // has not said anything yet
		other := w.sync(&kept.pair)
		other.report(&pb.Report{})
		other.wanted()

		type ending struct {
			stream string
			code   codes.Code
			newest uint64
			took   time.Duration
		}
		endings := make(chan ending, 2)
		w.remove("removed")
		returned := time.Now()
		for name, s := range map[string]*rawStream{"attached": attached, "silent": silent} {
			go func() {
				code, newest := s.end()
				endings <- ending{name, code, newest, time.Since(returned)}
			}()
		}
		for range 2 {
			if e := <-endings; e.code != codes.PermissionDenied || e.newest > 1 || e.took > time.Second {
				t.Errorf("the %s stream ended with %v after %s and was sent generation %d", e.stream, e.code, e.took, e.newest)
			}
		}
		w.rotate(0) // what is new now is not for it
		again := w.sync(&removed.pair)
		again.report(&pb.Report{})
		if code, newest := again.end(); code != codes.PermissionDenied || newest > 0 {
			t.Errorf("a new stream ended with %v and was sent generation %d", code, newest)
		}
		other.wantedFrom(2) // the twin
	})
}

// TestRemovedAgentAsksHourly: it keeps its files, says what happened, and neither
// a forged hint nor a true one makes it ask more often.
func TestRemovedAgentAsksHourly(t *testing.T) {
	simulate(t, func(w *world) {
		m := w.join("web")
		raw := w.rawHost("raw")
		liar := w.forger(raw.gossip.GetKeys()[0])
		before := m.trust()
		w.remove("web")
		until(t, "the agent knows", func() bool { return strings.Contains(m.status().Problem, "removed from the fleet") })
		w.rotate(0) // a true hint
		dials := w.wire.dialled("web", serverAddress)

		const hours = 2
		for round := range int(hours * time.Hour / (10 * time.Second)) {
			liar.lies(round, m.member, nil)
			time.Sleep(10 * time.Second)
		}
		if asked := w.wire.dialled("web", serverAddress) - dials; asked < hours-1 || asked > hours {
			t.Errorf("it asked %d times in %d hours", asked, hours)
		}
		same(t, before, m.trust())

		// The twin: enrolled anew it is let in again.
		m.stop()
		again := w.join("web-again")
		if len(again.trust()) == 0 {
			t.Error("the new host has no files")
		}
	}, func(_ *server.InitConfig, cfg *server.Config) { cfg.Tick = 5 * time.Minute })
}

// TestClonedIdentity: a second live stream of one identity is refused while the
// first answers; the first goes on. One that is dead is replaced.
func TestClonedIdentity(t *testing.T) {
	t.Parallel()
	w := start(t)
	h := w.rawHost("cloned")
	first := w.sync(&h.pair)
	first.report(&pb.Report{})
	generations := make(chan uint64, 100)
	answering := make(chan bool, 100) // false once: stop answering
	go func() {
		for live := true; ; {
			m, err := first.Recv()
			if err != nil {
				return
			}
			select {
			case live = <-answering:
			default:
			}
			if live {
				first.report(&pb.Report{Revision: m.GetWanted().GetRevision()})
			}
			generations <- m.GetWanted().GetGeneration()
		}
	}()
	<-generations
	for range 3 {
		clone := w.sync(&h.pair)
		clone.report(&pb.Report{})
		if code, newest := clone.end(); code != codes.AlreadyExists || newest > 0 {
			t.Errorf("the clone is told %v, want %v, and was sent generation %d", code, codes.AlreadyExists, newest)
		}
	}
	w.rotate(0)
	until(t, "the first is sent the new state", func() bool { return <-generations > 1 })

	answering <- false
	next := w.sync(&h.pair)
	next.report(&pb.Report{})
	if got := next.wanted().GetGeneration(); got < 2 {
		t.Errorf("the successor was sent generation %d", got)
	}
}

// TestBusyAgentIsNotReplaced: an agent that hangs in handshakes with a registry
// that does not answer still shows in time that it lives.
func TestBusyAgentIsNotReplaced(t *testing.T) {
	t.Parallel()
	w := start(t)
	m := w.machine("busy")
	m.cfg.Token = w.token(&pb.CreateTokenRequest{})
	dial := m.cfg.Dial
	m.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == registryName {
			<-ctx.Done() // packets are dropped on the way
			return nil, ctx.Err()
		}
		return dial(ctx, network, address)
	}
	m.start()
	until(t, "the agent has the bundle", func() bool { return w.host("busy").GetConnected() && m.status().Generation == 1 })
	clone := m.identity()
	for range 2 {
		s := w.sync(&clone)
		s.report(&pb.Report{})
		if code, newest := s.end(); code != codes.AlreadyExists || newest > 0 {
			t.Errorf("the clone is told %v, want %v, and was sent generation %d", code, codes.AlreadyExists, newest)
		}
	}
	m.stop()
	s := w.sync(&clone) // the twin: with nobody else it is let in
	s.report(&pb.Report{})
	s.wanted()
}

// TestIdentityIsRenewedOnAHeldStream: an agent that never loses its stream has a
// new identity at two thirds of the old one's life, and the spread.
func TestIdentityIsRenewedOnAHeldStream(t *testing.T) {
	const life = 9 * time.Hour
	simulate(t, func(w *world) {
		m := w.join("web", func(cfg *agent.Config) { cfg.GossipListen = "off" })
		first := m.status().IdentityNotAfter
		dials := w.wire.dialled("web", serverAddress)
		time.Sleep(life*2/3 - time.Hour)
		if got := w.wire.dialled("web", serverAddress); got != dials {
			t.Errorf("the stream was not held: %d dials more", got-dials)
		}
		time.Sleep(time.Hour + life/20 + 5*time.Minute) // and the spread
		if s := m.status(); !s.IdentityNotAfter.After(first) || !s.Connected {
			t.Errorf("the identity ends on %s as before (%s); connected: %v %s", s.IdentityNotAfter, first, s.Connected, s.Problem)
		}
		time.Sleep(life)
		if s := m.status(); !s.Connected || w.host("web").GetState() != "trusted" {
			t.Errorf("lost after the first identity's end: %s", s.Problem)
		}
	}, func(_ *server.InitConfig, cfg *server.Config) {
		cfg.Tick, cfg.IdentityLife, cfg.GossipListen = 5*time.Minute, life, "off"
	})
}
