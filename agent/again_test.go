package agent

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestOwnWritesDisturbNobody: the kernel tells of the agent's own writes too; what is as
// the last good evidence found it is no reason for another one, anything else is.
func TestOwnWritesDisturbNobody(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	h := newDockerHost(t)
	h.edge = serveTLS(t, pair)
	if !h.disturbed() {
		t.Error("without any evidence")
	}
	offer := offerOf(1, 1, pair.Leaf, ca)
	prove := func() { h.prove(t.Context(), h.reconcile(offer)) }
	for _, c := range []struct {
		what    string
		disturb func() error
	}{
		{"the file is gone", func() error { return os.Remove(h.file()) }},
		{"the file is another", func() error { return os.WriteFile(h.file(), []byte("other"), 0o644) }},
		{"Docker would not use it", func() error { return os.WriteFile(filepath.Join(filepath.Dir(h.file()), "x.cert"), nil, 0o644) }},
		{"the other is gone", func() error { return os.Remove(filepath.Join(filepath.Dir(h.file()), "x.cert")) }},
		{"nobody else may read the file", func() error { return os.Chmod(h.file(), 0o600) }},
		{"nor look into its directory", func() error { return os.Chmod(filepath.Dir(h.file()), 0o700) }},
	} {
		prove()
		if h.disturbed() {
			t.Errorf("before %q: a proof is no peace", c.what)
		}
		if err := c.disturb(); err != nil {
			t.Fatal(err)
		}
		if !h.disturbed() {
			t.Errorf("%s: not noticed", c.what)
		}
	}
}

// TestServedChainStaysProven: while the same certificate is served and a root verifies
// it alone, only a future one takes a handshake. Another served leaf, time, an outcome
// that was not good and a bundle without the issuer take one again.
func TestServedChainStaysProven(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	next, nextPair := authorityFor(t, "registry.test")
	staged := func(revision uint64) *pb.Wanted {
		o := offerOf(2, revision, pair.Leaf, ca, next)
		o.Leaves = append(o.Leaves, &pb.Leaf{Name: "registry.test", Certificate: nextPair.Leaf.Raw, Next: true})
		return o
	}
	h := newDockerHost(t)
	h.edge = serveTLS(t, pair, nextProtocol)
	turn := func(what string, offer *pb.Wanted, dials int) {
		t.Helper()
		h.dials = 0
		if problem := h.reconcile(offer); problem != "" {
			t.Fatal(problem)
		}
		if e := h.prove(t.Context(), ""); e.Live != certs.OK || h.dials != dials {
			t.Errorf("%s: %q after %d dials, want %d", what, e.Live, h.dials, dials)
		}
	}
	turn("first", offerOf(1, 1, pair.Leaf, ca), 1)
	turn("a rotation begins", staged(2), 1)
	h.proof.ticks = shakeEvery
	turn("long ago", staged(3), 2)
	h.proof.served = nil
	turn("another served leaf", staged(4), 2)
	h.proof.live = certs.Refused
	turn("it was not good", staged(6), 2)
	turn("taken back", offerOf(3, 7, pair.Leaf, ca), 0)
	turn("nothing but a revision", offerOf(3, 8, pair.Leaf, ca), 0)
	h.proof.ticks = shakeEvery
	turn("long ago, at rest", offerOf(3, 9, pair.Leaf, ca), 1)
	served, roots := servedOf(h.wanted.leaves), []*x509.Certificate{ca, next}
	counts := func(names []certs.Name, roots []*x509.Certificate, solo ...*x509.Certificate) bool {
		var fingerprints []certs.Fingerprint
		for _, r := range solo {
			fingerprints = append(fingerprints, certs.FingerprintOf(r))
		}
		return h.proof.covers(served, names, roots, fingerprints)
	}
	if !counts(h.names, roots, ca) {
		t.Error("it does not count although nothing changed")
	}
	if counts(h.names, roots, next) {
		t.Error("it counts although its issuer does not verify the certificate alone")
	}
	if counts(h.names, roots[1:], next) || counts(h.names, nil) {
		t.Error("it counts without the issuer")
	}
	if counts(append(slices.Clone(h.names), certs.Name{Host: "registry.test", Port: 5001}), roots, ca) {
		t.Error("it counts for a port that nobody dialled")
	}
}

// TestLull: the hosts of a large fleet spread their handshakes about something new; a
// newer offer and a changed file come first, and nobody else waits.
func TestLull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDockerHost(t)
		h.link, h.drift = newLink(h.membership), make(chan struct{}, 1)
		h.wanted.revision, h.proof.revision = 2, 1
		waits := func(window time.Duration) (done bool, took time.Duration) {
			h.link.current = pace{tick: time.Minute, window: window}
			began := time.Now()
			done = h.lull(h.link.until(t.Context()))
			return done, time.Since(began)
		}
		var longest time.Duration
		for range 100 {
			done, took := waits(time.Second)
			if longest = max(longest, took); !done || took > 2*time.Second {
				t.Fatalf("%v after %v", done, took)
			}
		}
		if longest < time.Second {
			t.Errorf("100 waits were at most %v: they are not spread over twice the window", longest)
		}
		if done, took := waits(24 * time.Hour); !done || took > maxLull {
			t.Errorf("a window of a day: %v after %v", done, took)
		}
		if done, took := waits(0); !done || took != 0 {
			t.Errorf("a small fleet: %v after %v", done, took)
		}
		h.drift <- struct{}{}
		if done, took := waits(time.Hour); done || took != 0 {
			t.Errorf("a file changed: %v after %v", done, took)
		}
		h.link.offers.put(&pb.Wanted{Revision: 3})
		if done, took := waits(time.Hour); done || took != 0 {
			t.Errorf("a newer offer that came before: %v after %v", done, took)
		}
		h.link.offers.take()
		h.proof.revision = 2
		if done, took := waits(time.Hour); !done || took != 0 {
			t.Errorf("nothing new: %v after %v", done, took)
		}
		h.proof.revision = 0
		if done, took := waits(time.Hour); !done || took != 0 {
			t.Errorf("the first contact: %v after %v", done, took)
		}
	})
}
