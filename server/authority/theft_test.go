package authority

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// verifies says whether a client that trusts roots accepts what the edge of the
// rig serves.
func (r *rig) verifies(roots []*x509.Certificate) error {
	pair := r.current["registry.example.com"]
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			r.t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	return certs.VerifyServed(chain, roots, "registry.example.com", time.Now())
}

// later runs the authority at a time until it has nothing to do.
func (r *rig) later(at time.Time) {
	r.t.Helper()
	for range 20 {
		again, err := r.a.step(at)
		if err != nil {
			r.t.Fatal(err)
		}
		if !again {
			return
		}
	}
	r.t.Fatal("the authority does not come to rest")
}

// TestCompromise: nothing that the stolen key signed is served afterwards, its key
// file is gone at the switch, and who was not ready is uncovered and named.
func TestCompromise(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	r.ack("web-2")
	stolen := r.a.Wanted().Bundle.Roots
	stolenKey := r.a.rec.CAs[0].Key
	if _, _, err := r.a.Rotate("uid 0", Start{Compromised: true}); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	if r.phase() != Staged {
		t.Fatalf("%s although web-2 may still come", r.phase())
	}
	r.later(time.Now().Add(compromisedPatience))
	if r.phase() != Retiring {
		t.Fatalf("%s after the deadline", r.phase())
	}
	if err := r.verifies(stolen); err == nil {
		t.Error("a client that trusts only the stolen CA accepts what is served: a link was signed with it")
	}
	if err := r.verifies(r.a.Wanted().Bundle.Roots); err != nil {
		t.Errorf("a client that has the new CA refuses what is served: %v", err)
	}
	have, err := r.keys.List()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(have, stolenKey) {
		t.Error("the stolen key is kept")
	}
	if !r.hosts[0].Covered || r.hosts[1].Covered {
		t.Errorf("covered: web-1 %v, web-2 %v", r.hosts[0].Covered, r.hosts[1].Covered)
	}
	i := slices.IndexFunc(r.a.rec.History, func(e Entry) bool { return e.Event == "switch" })
	if i < 0 || r.a.rec.History[i].By != "deadline" || !strings.Contains(r.a.rec.History[i].Detail, "web-2") {
		t.Errorf("history: %+v", r.a.rec.History)
	}
	r.open() // a restart finds a bundle whose older CA has no key, if it comes in between
	r.ack("web-1")
	r.ack("web-2")
	if !r.hosts[1].Covered {
		t.Error("web-2 came back and is not covered")
	}
}

// TestCompromiseReopens: a crash right after the switch, while the bundle still
// has the stolen CA's certificate, loses nothing.
func TestCompromiseReopens(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	if _, _, err := r.a.Rotate("uid 0", Start{Compromised: true}); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(compromisedPatience)
	for r.phase() != Switched {
		if _, err := r.a.step(at); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.a.Wanted().Bundle.Roots) != 2 || r.a.rec.Rotation.Other != 0 {
		t.Fatalf("bundle %v, other %d", r.a.rec.Rotation.Bundle, r.a.rec.Rotation.Other)
	}
	r.open()
	if r.phase() != Retiring && r.phase() != Idle {
		t.Fatalf("%s after reopening", r.phase())
	}
}

// TestRollbackAfterSwitch: the old CA serves again, and the new one's keys go.
func TestRollbackAfterSwitch(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	old := r.a.Wanted().Bundle.Roots
	if _, _, err := r.a.Rotate("uid 0", Start{}); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	if r.phase() != Switched {
		t.Fatalf("%s", r.phase())
	}
	newer := r.a.Wanted().Bundle.Roots[1:]
	if err := r.a.Rollback("uid 0"); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	if r.phase() != Idle || r.a.rec.Rotation.Active != 1 {
		t.Fatalf("%s with CA %d", r.phase(), r.a.rec.Rotation.Active)
	}
	if err := r.verifies(old); err != nil {
		t.Errorf("a client with the old CA alone: %v", err)
	}
	if err := r.verifies(newer); err == nil {
		t.Error("a client with the CA that was taken back accepts what is served")
	}
	if have, err := r.keys.List(); err != nil || len(have) != 2 {
		t.Errorf("%d keys are left (%v), want those of one CA and its leaf", len(have), err)
	}
}

// TestReplace: the staged CA's keys are gone with it.
func TestReplace(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	for _, s := range []Start{{}, {Replace: true}} {
		if _, _, err := r.a.Rotate("uid 0", s); err != nil {
			t.Fatal(err)
		}
		r.steps()
	}
	if r.a.rec.Rotation.Other != 3 || len(r.a.Keys()) != 4 {
		t.Fatalf("other is CA %d, %d keys", r.a.rec.Rotation.Other, len(r.a.Keys()))
	}
	if have, err := r.keys.List(); err != nil || len(have) != 4 {
		t.Errorf("%d key files (%v)", len(have), err)
	}
	for range 3 {
		r.ack("web-1")
	}
	if r.phase() != Idle || r.a.rec.Rotation.Active != 3 {
		t.Errorf("%s with CA %d", r.phase(), r.a.rec.Rotation.Active)
	}
}

// TestPrune: a link whose signer has ended is not served any more.
func TestPrune(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	for range 2 {
		if _, _, err := r.a.Rotate("uid 0", Start{}); err != nil {
			t.Fatal(err)
		}
		r.steps()
		for range 3 {
			r.ack("web-1")
		}
	}
	if n := len(r.current["registry.example.com"].Certificate); n != 3 {
		t.Fatalf("%d certificates are served, want a leaf and two links", n)
	}
	r.a.rec.Links[1].Ends = time.Now()
	r.steps()
	if n := len(r.current["registry.example.com"].Certificate); n != 2 || len(r.a.rec.Links) != 1 {
		t.Errorf("%d certificates are served, %d links kept", n, len(r.a.rec.Links))
	}
}

// TestRestoredServesNobody: until the present host has the restored CA.
func TestRestoredServesNobody(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	if err := Restore(r.cfg.Records, time.Now(), "uid 0"); err != nil {
		t.Fatal(err)
	}
	r.hosts[0].Evidence, r.current, r.saw = nil, nil, nil
	r.open()
	if r.current != nil || r.a.Settled() || !r.a.UnderWay() {
		t.Fatalf("it serves %v, settled %v, under way %v", r.current != nil, r.a.Settled(), r.a.UnderWay())
	}
	if !slices.Contains(r.saw, "announce") {
		t.Error("nobody is told what to have")
	}
	if g := r.a.Wanted().Bundle.Generation; g < uint64(time.Now().Unix())-60 {
		t.Errorf("generation %d", g)
	}
	r.ack("web-1")
	if r.current == nil || !r.a.Settled() {
		t.Error("it does not serve although its host has the CA")
	}
}

// TestServeNowServes: when it says so, without Run.
func TestServeNowServes(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	if err := Restore(r.cfg.Records, time.Now(), "uid 0"); err != nil {
		t.Fatal(err)
	}
	r.hosts[0].Evidence, r.current = nil, nil
	r.open()
	if r.current != nil {
		t.Fatal("it serves before it is told to")
	}
	if err := r.a.ServeNow("uid 0"); err != nil {
		t.Fatal(err)
	}
	if r.current == nil || !r.a.Settled() {
		t.Errorf("it says done, and serves %v, settled %v", r.current != nil, r.a.Settled())
	}
	r.steps() // and Run goes on from there
	if r.hosts[0].Covered {
		t.Error("a host that has shown nothing is covered still")
	}
}

// TestHistoryNamesWhoWasWaitedFor: the last host that held a step is in its line.
func TestHistoryNamesWhoWasWaitedFor(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	r.ack("web-2")
	if _, _, err := r.a.Rotate("uid 0", Start{}); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	r.ack("web-2")
	last := r.a.rec.History[len(r.a.rec.History)-1]
	if last.Event != "switch" || !slices.Equal(last.WaitedFor, []string{"web-2"}) || last.By != "evidence" {
		t.Errorf("%+v", last)
	}
}
