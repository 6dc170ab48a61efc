package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
)

// newFleetNode is a server with hosts and nothing else.
func newFleetNode(t *testing.T, dir string) *node {
	t.Helper()
	store, err := records.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := records.OpenKeys(dir + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	cfg := identity.Config{Records: store, Keys: keys, Log: log}
	if _, err := identity.Create(cfg, time.Now()); err != nil {
		t.Fatal(err)
	}
	n := &node{cfg: Config{Tick: time.Minute}, store: store, log: log}
	if n.identity, err = identity.Open(cfg); err != nil {
		t.Fatal(err)
	}
	n.fleet, err = fleet.Open(fleet.Config{Records: store, GoneAfter: 10 * time.Minute, Changed: func(string) {}, Dropped: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// host enrols one that reports once.
func (n *node) host(t *testing.T, name string) *fleet.Stream {
	t.Helper()
	secret, _, err := n.identity.CreateToken(identity.TokenOptions{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	h, _, _, err := n.identity.Enroll(identity.Enrollment{TokenID: secret.ID, Secret: secret.Secret, CSR: csr, Name: name}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.fleet.Attach(context.Background(), h.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Report(certs.Evidence{}, fleet.Details{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSilentHostsAreForgotten: after 90 days without a sign, and not before; one
// whose stream is open is not. That a host was removed is remembered for as long as
// its key could renew.
func TestSilentHostsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newFleetNode(t, dir)
		defer n.host(t, "kept").Close()
		n.host(t, "silent").Close()
		n.host(t, "removed").Close()
		if _, err := n.identity.Remove("removed"); err != nil {
			t.Fatal(err)
		}
		if err := n.fleet.Drop(n.identity.Removed()[0].ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(fleet.ForgetAfter - time.Second)
		n.forgetSilent()
		if _, err := n.identity.Host("silent"); err != nil || n.fleet.Size() != 2 {
			t.Fatalf("forgotten before its time: %v", err)
		}
		time.Sleep(time.Second)
		n.forgetSilent()
		if _, err := n.identity.Host("silent"); err == nil || n.fleet.Size() != 1 {
			t.Errorf("still known after %s (%v, %d in the fleet)", fleet.ForgetAfter, err, n.fleet.Size())
		}
		if _, err := n.identity.Host("kept"); err != nil {
			t.Errorf("a host whose stream is open: %v", err)
		}
		ends := n.identity.Removed()[0].Ends
		time.Sleep(time.Until(ends.Add(identity.RenewGrace - time.Second)))
		n.forgetSilent()
		if len(n.identity.Removed()) != 1 {
			t.Error("the removed host is forgotten while its key could renew")
		}
		time.Sleep(time.Second)
		n.forgetSilent()
		if len(n.identity.Removed()) != 0 {
			t.Error("the removed host is remembered for ever")
		}
	})
}
