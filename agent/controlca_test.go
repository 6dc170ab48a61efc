package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// controlCA signs as the server's control CA does.
type controlCA struct {
	t   *testing.T
	key *ecdsa.PrivateKey
}

func newControlCA(t *testing.T) controlCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return controlCA{t, key}
}

// cert is one of the CA's certificates; change makes it something else.
func (c controlCA) cert(from, to time.Time, change ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(to.Unix()), Subject: pkix.Name{CommonName: "trustcast control CA"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, f := range change {
		f(template)
	}
	return c.sign(template, template, c.key.Public())
}

func (c controlCA) sign(template, parent *x509.Certificate, pub any) *x509.Certificate {
	c.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

// server is the chain that a server shows under ca.
func (c controlCA) server(ca *x509.Certificate) []*x509.Certificate {
	c.t.Helper()
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	leaf := c.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs: []*url.URL{{Scheme: "trustcast", Host: "fleet", Path: "/server"}},
	}, ca, key.Public())
	return []*x509.Certificate{leaf, ca}
}

const days = 24 * time.Hour

// TestEndedControlCAIsStillThePin: a host whose control CA has ended accepts a
// server that shows another certificate of the same key, and nobody else.
func TestEndedControlCAIsStillThePin(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ours, other := newControlCA(t), newControlCA(t)
	ended := ours.cert(now.Add(-20*days), now.Add(-10*days))
	next := ours.cert(now.Add(-20*days), now.Add(10*days))
	verify := func(chain []*x509.Certificate) error {
		roots := []*x509.Certificate{ended}
		_, err := verifyServer(chain, withShown(roots, chain))
		return err
	}
	if err := verify(ours.server(next)); err != nil {
		t.Errorf("a re-issued control CA: %v", err)
	}
	foreign := other.cert(now.Add(-days), now.Add(days))
	crossed := other.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: next.Subject, NotBefore: next.NotBefore, NotAfter: next.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, foreign, ours.key.Public())
	noCA := ours.cert(now.Add(-days), now.Add(days), func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero, c.KeyUsage = false, false, 0 })
	for name, chain := range map[string][]*x509.Certificate{
		"no certificate":              nil,
		"the CA has ended":            ours.server(ended),
		"the leaf alone":              ours.server(next)[:1],
		"another CA of the same name": other.server(foreign),
		"our CA beside another's":     append(other.server(foreign), next),
		"our CA, another's leaf":      {other.server(foreign)[0], next},
		"our key, but no CA":          {ours.server(next)[0], noCA},
		"our key, signed by another":  {ours.server(next)[0], crossed},
	} {
		if verify(chain) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRenewRoots(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ours, other := newControlCA(t), newControlCA(t)
	from := now.Add(-100 * days)
	ended, old, next := ours.cert(from, now.Add(-days)), ours.cert(from, now.Add(days)), ours.cert(from, now.Add(20*days))
	foreign := other.cert(from, now.Add(20*days))
	type list = []*x509.Certificate
	for _, test := range []struct {
		name                string
		kept, offered, want list
	}{
		{"nothing new", list{old}, list{old}, list{old}},
		{"nothing offered", list{old}, nil, list{old}},
		{"re-issued", list{old}, list{next}, list{next, old}},
		{"the old one has ended", list{ended}, list{next}, list{next}},
		{"all have ended: the pin stays", list{ended}, nil, list{ended}},
		{"another key", list{old}, list{foreign}, nil},
		{"another key among ours", list{old}, list{next, foreign}, nil},
		{"no CA", list{old}, list{ours.server(old)[0]}, nil},
	} {
		got, err := renewRoots(test.kept, test.offered, now)
		if (err != nil) != (test.want == nil) || len(got) != len(test.want) {
			t.Errorf("%s: %d roots, %v; want %d", test.name, len(got), err, len(test.want))
			continue
		}
		for i := range got {
			if !got[i].Equal(test.want[i]) {
				t.Errorf("%s: root %d is another one", test.name, i)
			}
		}
	}
	many := list{old}
	for i := range 2 * maxControlCAs {
		many, _ = renewRoots(many, list{ours.cert(from, now.Add(time.Duration(i+2)*days))}, now)
	}
	if len(many) != maxControlCAs {
		t.Errorf("%d certificates are kept, want %d", len(many), maxControlCAs)
	}
}

// TestIdentityFileKeepsBoth: a re-issued control CA and a renewed identity are
// written by different goroutines into one file; neither loses the other.
func TestIdentityFileKeepsBoth(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca := newControlCA(t)
	old, next := ca.cert(now.Add(-days), now.Add(days)), ca.cert(now.Add(-days), now.Add(10*days))
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &membership{cfg: Config{}.withDefaults(), store: s}
	a.log = a.cfg.Log
	a.link = newLink(a)
	a.enrolment = enrolment{Format: stateFormat, Cert: []byte("old"), ControlCAs: [][]byte{old.Raw}}
	done := make(chan error)
	go func() { done <- a.changeIdentity(func(e *enrolment) { e.Cert = []byte("new") }) }()
	if err := a.takeControlCAs([]*x509.Certificate{next}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var disk enrolment
	if _, err := s.read(identityFile, &disk); err != nil {
		t.Fatal(err)
	}
	for where, e := range map[string]enrolment{"on disk": disk, "in memory": a.identity()} {
		if string(e.Cert) != "new" || len(e.ControlCAs) != 2 || string(e.ControlCAs[0]) != string(next.Raw) {
			t.Errorf("%s: certificate %q, %d control CAs", where, e.Cert, len(e.ControlCAs))
		}
	}
}

// TestFilesOfBeforeRingVersionsOpen: strict reading takes what an earlier agent
// wrote.
func TestFilesOfBeforeRingVersionsOpen(t *testing.T) {
	t.Parallel()
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	old, err := json.Marshal(map[string]any{"format": 1, "revision": 3, "gossip": map[string]any{"keys": [][]byte{make([]byte, 32)}, "peers": []string{"a:1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, trustedFile), old, 0o600); err != nil {
		t.Fatal(err)
	}
	var got trusted
	if ok, err := s.read(trustedFile, &got); !ok || err != nil || got.Gossip.Version != 0 || len(got.Gossip.Keys) != 1 {
		t.Errorf("read %v, %v: version %d", ok, err, got.Gossip.Version)
	}
}
