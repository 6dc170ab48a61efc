package sim

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// identityOf reads what a host keeps of its identity: its own certificate and the
// control CAs that it trusts.
func (w *world) identityOf(name string) (own *x509.Certificate, cas []*x509.Certificate) {
	w.t.Helper()
	var f struct {
		Cert       []byte   `json:"cert"`
		ControlCAs [][]byte `json:"control_cas"`
	}
	if !readJSON(filepath.Join(w.host(name).dir, "state", "identity.json"), &f) {
		w.t.Fatalf("%s has no identity", name)
	}
	own, err := certs.ParseCertificate(f.Cert)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, der := range f.ControlCAs {
		ca, err := certs.ParseCertificate(der)
		if err != nil {
			w.t.Fatal(err)
		}
		cas = append(cas, ca)
	}
	return own, cas
}

// TestSleeperOutlivesEveryCertificate: a host sleeps until its own identity, the
// control CA that it pinned, the server's identity and the gossip key are all
// others. It comes back by itself, while a host that was removed does not. Who
// stays awake gets the re-issued control CA over its stream.
func TestSleeperOutlivesEveryCertificate(t *testing.T) {
	short := func(init *server.InitConfig, cfg *server.Config) {
		init.ControlLife = 40 * time.Minute
		cfg.ControlLife, cfg.ServerIdentityLife, cfg.IdentityLife = 40*time.Minute, 10*time.Minute, 20*time.Minute
	}
	simulateWith(t, short, 4, agent.Layers{}, func(w *world) {
		own, cas := w.identityOf("host-1")
		w.stopAgent("host-1")
		w.stopAgent("host-2")
		w.removeHost("host-2")
		w.rotateWithin(5 * time.Second)
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		time.Sleep(time.Until(cas[0].NotAfter) + 10*time.Minute)
		if now := time.Now(); !now.After(own.NotAfter) || !now.After(cas[0].NotAfter) {
			t.Fatal("host-1 did not sleep for long enough: nothing is tested")
		}
		_, awake := w.identityOf("host-0")
		if len(awake) == 0 || !awake[0].NotAfter.After(time.Now()) || certs.Pin(awake[0]) != certs.Pin(cas[0]) {
			t.Errorf("host-0 keeps %d control CAs and none that is good", len(awake))
		}
		if made, err := w.pull(w.host("host-1")); err != nil || !made {
			t.Errorf("the sleeper cannot pull: %v", err)
		}
		w.startAgent("host-1")
		w.startAgent("host-2")
		w.until("host-1 is back", 5*time.Minute, trusted(3))
		w.until("it meets the others", 5*time.Minute, meets(3))
		if renewed, cas := w.identityOf("host-1"); renewed.Equal(own) || !cas[0].NotAfter.After(time.Now()) {
			t.Error("host-1 works with an ended identity or control CA")
		}
		if hostOf(w.status(), "host-2") != nil {
			t.Error("the removed host is back")
		}
		if s := w.status(); len(s.GetWarnings()) != 1 || !strings.Contains(s.GetWarnings()[0], "no users") {
			t.Errorf("what was renewed in time is warned about: %q", s.GetWarnings())
		}
	})
}

// TestWrongClocks: two of three hosts whose clocks are two hours ahead say that
// the server's is wrong, and what it does by itself pauses; one of three cannot.
func TestWrongClocks(t *testing.T) {
	for ahead, paused := range map[int]bool{1: false, 2: true} {
		t.Run(fmt.Sprint(ahead, " of 3"), func(t *testing.T) {
			short := func(init *server.InitConfig, cfg *server.Config) { cfg.ServerIdentityLife = 12 * time.Minute }
			simulateWith(t, short, 3, agent.Layers{}, func(w *world) {
				for i := range ahead {
					name := fmt.Sprintf("host-%d", i)
					w.stopAgent(name)
					w.host(name).ahead = 2 * time.Hour
					w.startAgent(name)
				}
				w.rotate()
				w.until("the rotation ends", 10*time.Minute, idleAt(3))
				w.until("the clocks are known", time.Minute, func(s *pb.Status) bool {
					return hostOf(s, "host-0").GetClockSkew().AsDuration() > 119*time.Minute
				})
				if text := w.status().GetPaused(); (text != "") != paused || paused && !strings.Contains(text, "2h0m0s behind") {
					t.Errorf("paused: %q", text)
				}
				before := w.serverIdentity()
				time.Sleep(10 * time.Minute) // two thirds of its life are over
				if renewed := !w.serverIdentity().Equal(before); renewed == paused {
					t.Errorf("the server's identity was renewed: %v, paused: %v", renewed, paused)
				}
				for i := range ahead {
					name := fmt.Sprintf("host-%d", i)
					w.stopAgent(name)
					w.host(name).ahead = 0
					w.startAgent(name)
				}
				w.until("nothing pauses any more", 2*time.Minute, func(s *pb.Status) bool { return s.GetPaused() == "" })
				w.until("the server's identity is renewed", 5*time.Minute, func(*pb.Status) bool { return !w.serverIdentity().Equal(before) })
			})
		})
	}
}

// serverIdentity is the certificate that the server's record has.
func (w *world) serverIdentity() *x509.Certificate {
	w.t.Helper()
	var r struct{ Value struct{ Server []byte } }
	if !readJSON(filepath.Join(w.cfg.DataDir, "state", "records", "control.json"), &r) {
		w.t.Fatal("the server has no record of its identity")
	}
	cert, err := certs.ParseCertificate(r.Value.Server)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

// TestLateIdentityIsNamed: a present host that does not renew is warned about,
// and nobody else.
func TestLateIdentityIsNamed(t *testing.T) {
	short := func(_ *server.InitConfig, cfg *server.Config) { cfg.IdentityLife = 20 * time.Minute }
	simulateWith(t, short, 2, agent.Layers{}, func(w *world) {
		w.rotate()
		w.until("the rotation ends", 10*time.Minute, idleAt(3))
		time.Sleep(40 * time.Minute)
		late := func(s *pb.Status) string {
			for _, warning := range s.GetWarnings() {
				if strings.Contains(warning, "not renewed") {
					return warning
				}
			}
			return ""
		}
		if text := late(w.status()); text != "" { // the negative control: all renew
			t.Errorf("warned without a reason: %q", text)
		}
		// It is behind, so that for itself its identity is still young.
		w.stopAgent("host-1")
		w.host("host-1").ahead = -15 * time.Minute
		w.startAgent("host-1")
		w.until("host-1 is named", 40*time.Minute, func(s *pb.Status) bool {
			text := late(s)
			return strings.Contains(text, "host-1") && !strings.Contains(text, "host-0")
		})
		time.Sleep(2 * time.Minute)
		lines := w.logged("not renewed on host-1")
		if n := len(lines); n == 0 || n > 4 { // once for each threshold, and for the end
			t.Errorf("logged %d times: %q", n, lines)
		}
	})
}
