package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/plain"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// TestAdopted: a plain registry is taken over, hosts join, and the first rotation waits
// for all that are there. One that is away fails from the switch on, was named before
// and is named after, and is well again at its first contact; the next rotation it may
// sleep through.
func TestAdopted(t *testing.T) {
	for what, make := range map[string]func() (plain.Pair, error){
		"signed by itself": func() (plain.Pair, error) { return plain.SelfSigned(plain.Options{}, domain) },
		"a company's":      func() (plain.Pair, error) { return plain.Company(plain.Options{}, true, domain) },
	} {
		t.Run(what, func(t *testing.T) {
			var old plain.Pair
			simulateWith(t, func(init *server.InitConfig, _ *server.Config) {
				var err error
				if old, err = make(); err == nil {
					err = plain.Write(init.DataDir, old, "", "")
				}
				if err != nil {
					t.Fatal(err)
				}
				init.Adopt.From = init.DataDir
			}, 4, agent.Layers{}, func(w *world) { w.playAdopted(old) })
		})
	}
}

func (w *world) playAdopted(old plain.Pair) {
	t := w.t
	roots, err := certs.ParsePEM(old.CA)
	if err != nil {
		t.Fatal(err)
	}
	asItWas := func() error {
		t.Helper()
		made, err := w.shake("a host without an agent", roots)
		if !made {
			t.Fatalf("no handshake: %v", err)
		}
		return err
	}
	if s := w.status(); s.GetGeneration() != 0 || asItWas() != nil {
		t.Fatalf("generation %d, a host as it was: %v", s.GetGeneration(), asItWas())
	}
	w.restartServer()
	w.until("all hosts trust after a restart", time.Minute, trusted(4))
	w.stopAgent("host-1")
	w.until("host-1 is gone", 10*time.Minute, func(s *pb.Status) bool { return !hostNamed(s, "host-1").GetPresent() })
	if o := w.outlookOf("host-1"); o.GetOutlook() != "fails" {
		t.Errorf("host-1 before the rotation: %v", o)
	}
	w.rotateAndHold("staged") // by host-0, for as long as it takes
	if err := asItWas(); err != nil {
		t.Errorf("staged: a host as it was: %v", err)
	}
	if file, err := os.ReadFile(filepath.Join(w.cfg.DataDir, "certs", "domain.crt")); err != nil || !bytes.Equal(file, old.Cert) {
		t.Errorf("the operator's certificate was touched: %v", err)
	}
	w.cutLink("host-0", false)
	w.until("the rotation ends", 20*time.Minute, idleAt(2))
	if asItWas() == nil {
		t.Error("the old certificate still serves")
	}
	sleeper := w.host("host-1")
	if made, err := w.pull(sleeper); !made || err == nil {
		t.Errorf("host-1 slept through it and pulls: made %v, %v", made, err)
	}
	if s := w.status(); hostNamed(s, "host-1").GetCovered() || !strings.Contains(w.historyText(), "left behind, fail until they come back: host-1") {
		t.Errorf("host-1 is not named: %v\n%s", hostNamed(s, "host-1"), w.historyText())
	}
	w.startAgent("host-1")
	w.until("all hosts trust", 5*time.Minute, trusted(4))
	w.stopAgent("host-2")
	w.rotateWithin(30 * time.Second)
	w.until("the second rotation ends", 20*time.Minute, idleAt(4))
	if made, err := w.pull(w.host("host-2")); !made || err != nil {
		t.Errorf("host-2 slept through the second rotation and cannot pull: %v", err)
	}
	w.startAgent("host-2")
	w.until("all hosts trust again", 5*time.Minute, trusted(4))
	w.checkOldKey(old)
}

// checkOldKey: retired, the key is in the operator's file alone, and status says so.
func (w *world) checkOldKey(old plain.Pair) {
	file, err := os.ReadFile(filepath.Join(w.cfg.DataDir, "certs", "domain.key"))
	if err != nil || !bytes.Equal(file, old.Key) {
		w.t.Errorf("the operator's file was touched: %v", err)
	}
	if warnings := strings.Join(w.status().GetWarnings(), "\n"); !strings.Contains(warnings, "domain.key is the key of the certificate that was adopted") {
		w.t.Errorf("warnings: %s", warnings)
	}
}

func hostNamed(s *pb.Status, name string) *pb.Host {
	for _, h := range s.GetHosts() {
		if h.GetName() == name {
			return h
		}
	}
	return nil
}

func (w *world) outlookOf(name string) *pb.HostOutlook {
	var plan *pb.PlanRotationResponse
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) (err error) {
		plan, err = c.PlanRotation(ctx, &pb.PlanRotationRequest{})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range plan.GetHosts() {
		if o.GetHost() == name {
			return o
		}
	}
	return nil
}

// historyText is the history, a line an event.
func (w *world) historyText() string {
	var text strings.Builder
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.ShowCA(ctx, &pb.ShowCARequest{})
		for _, e := range r.GetHistory() {
			fmt.Fprintln(&text, e.GetEvent(), e.GetBy(), e.GetDetail())
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return text.String()
}
