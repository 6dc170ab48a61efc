package security

import (
	"context"
	"crypto/tls"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// neverReads opens a stream for a host, reports once and reads nothing.
func (h *rawHost) neverReads() {
	h.w.t.Helper()
	conn := h.w.connect(credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*h.tls()},
	}), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10)) // fixed: it does not grow by itself
	ctx, cancel := context.WithCancel(context.Background())
	h.w.t.Cleanup(cancel)
	stream, err := pb.NewAgentServiceClient(conn).Sync(ctx)
	if err != nil {
		h.w.t.Fatal(err)
	}
	if err := stream.Send(&pb.SyncRequest{Report: &pb.Report{Boot: 1, Sequence: 1}}); err != nil {
		h.w.t.Fatal(err)
	}
	until(h.w.t, h.name+" is connected", func() bool { return h.w.host(h.name).GetConnected() })
}

// simulateSlow plays with states of some 30 kB: a few fill a client that never
// reads.
func simulateSlow(t *testing.T, play func(w *world)) {
	simulate(t, play, func(init *server.InitConfig, cfg *server.Config) {
		cfg.GossipListen = "off"
		for i := range 40 {
			init.Aliases = append(init.Aliases, "alias-"+strconv.Itoa(i)+".test")
		}
	})
}

// rotateFor rotates and waits for one agent only.
func (w *world) rotateFor(m *machine) {
	w.t.Helper()
	want, began := w.status().GetGeneration()+2, time.Now()
	w.rotate(0)
	until(w.t, m.cfg.Name+" follows", func() bool {
		return w.status().GetRotation().GetPhase() == "idle" && m.status().Generation == want
	})
	if took := time.Since(began); took > 5*time.Second {
		w.t.Errorf("a rotation took %s", took)
	}
}

// TestSlowAgentBlocksNobody: a client that never reads is given up, and everybody
// else is served meanwhile.
func TestSlowAgentBlocksNobody(t *testing.T) {
	simulateSlow(t, func(w *world) {
		fast := w.join("fast", func(cfg *agent.Config) { cfg.GossipListen = "off" })
		w.rawHost("slow").neverReads()
		for rotations := 0; w.host("slow").GetConnected(); rotations++ {
			if rotations > 20 {
				t.Fatal("the slow one is still connected after 20 rotations")
			}
			w.rotateFor(fast)
			time.Sleep(12 * time.Second) // longer than the limit of one send
		}
		if got := w.host("fast"); !got.GetConnected() || got.GetState() != "trusted" {
			t.Errorf("the fast one is %s", got.GetState())
		}
	})
}

// TestRemovedWhileBlocked: a host that does not read cannot keep its stream for
// longer than others when it is removed.
func TestRemovedWhileBlocked(t *testing.T) {
	simulateSlow(t, func(w *world) {
		fast := w.join("fast", func(cfg *agent.Config) { cfg.GossipListen = "off" })
		w.rawHost("slow").neverReads()
		for range 3 { // within the limit of one send
			w.rotateFor(fast)
		}
		if !w.host("slow").GetConnected() {
			t.Fatal("given up already: nothing is shown")
		}
		w.remove("slow")
		time.Sleep(time.Second)
		if !strings.Contains(w.log.String(), `msg="host disconnected" who=server host=slow`) {
			t.Error("its stream is open a second after it was removed")
		}
	})
}
