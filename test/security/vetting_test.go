package security

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math"
	"math/big"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// registryCA makes a registry CA by hand: the right one for registry.test but for
// what change spoils.
func registryCA(t *testing.T, change func(template *x509.Certificate)) []byte {
	t.Helper()
	key := newKey(t)
	template := caTemplate()
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func caTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "registry.test registry CA 7 evil"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"registry.test"},
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
}

// registryCAOf is the right CA but with another kind of key.
func registryCAOf(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// badOffer is a wanted state from a server that proved to be the right one; says
// is what the agent answers.
type badOffer struct {
	name  string
	spoil func(w *pb.Wanted)
	says  string
}

// badOffers are spoilt copies of a good state of generation 10.
func badOffers(t *testing.T, good *pb.Wanted) []badOffer {
	t.Helper()
	active := good.GetBundle()[0]
	fine := registryCA(t, func(*x509.Certificate) {})
	other := registryCA(t, func(c *x509.Certificate) { c.Subject.CommonName = "another" })
	bundle := func(ders ...[]byte) func(*pb.Wanted) {
		return func(w *pb.Wanted) { w.Generation, w.Bundle = 50, ders }
	}
	ca := func(change func(*x509.Certificate)) func(*pb.Wanted) { return bundle(active, registryCA(t, change)) }
	names := func(names ...string) func(*pb.Wanted) {
		return func(w *pb.Wanted) { w.Generation, w.Names = 50, names }
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384Key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := pair{cert: parse(t, fine), key: newKey(t)}
	manyNames := []string{registryName}
	for i := range 100 {
		manyNames = append(manyNames, "n"+strconv.Itoa(i)+".test:5000")
	}
	return []badOffer{
		{"an older generation", func(w *pb.Wanted) { w.Generation = 9 }, "accepted generation 10 already"},
		{"generation 1 with a new CA", func(w *pb.Wanted) { w.Generation, w.Bundle = 1, [][]byte{fine} }, "accepted generation 10 already"},
		{"no generation", func(w *pb.Wanted) { w.Generation = 0 }, "no generation"},
		{"the same generation with another CA", func(w *pb.Wanted) { w.Bundle = [][]byte{fine} }, "another bundle under generation 10"},
		{"the same generation with one more CA", func(w *pb.Wanted) { w.Bundle = [][]byte{active, fine} }, "another bundle under generation 10"},

		{"no certificate", bundle(), "0 certificates"},
		{"three certificates", bundle(active, fine, other), "3 certificates"},
		{"one twice", bundle(fine, fine), "twice"},
		{"garbage", bundle([]byte("hello")), "does not parse"},
		{"an empty certificate", bundle(active, nil), "does not parse"},
		{"a certificate and something behind it", bundle(append(slices.Clone(fine), 0)), "does not parse"},
		{"a certificate too big", ca(func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("a", 17<<10)} }), "at most 16384"},
		{"the greatest generation with garbage", func(w *pb.Wanted) { w.Generation, w.Bundle = math.MaxUint64, [][]byte{{0}} }, "does not parse"},

		{"no CA", ca(func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLen = 0 }), "is no CA"},
		{"the served leaf", func(w *pb.Wanted) { w.Generation, w.Bundle = 50, [][]byte{w.GetLeaves()[0].GetCertificate()} }, "is no CA"},
		{"a CA that may not sign", ca(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), "may not sign"},
		{"a CA with a path length", ca(func(c *x509.Certificate) { c.MaxPathLen = 1 }), "path length"},
		{"an expired CA", ca(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*time.Hour), c.NotBefore }), "ended on"},
		{"a CA of tomorrow", ca(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = c.NotAfter, c.NotAfter.Add(time.Hour) }), "valid only from"},
		{"an RSA CA", bundle(active, registryCAOf(t, rsaKey)), "P-256"},
		{"a P-384 CA", bundle(active, registryCAOf(t, p384Key)), "P-256"},
		{"a CA signed by another", bundle(active, crossSigned(t, issuer)), "not signed by itself"},

		{"a CA for any name", ca(func(c *x509.Certificate) { c.PermittedDNSDomains, c.ExcludedIPRanges = nil, nil }), "no critical name constraints"},
		{"a CA with a mere wish", ca(func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false }), "no critical name constraints"},
		{"a CA for another name", ca(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"docker.io"} }), "docker.io"},
		{"a CA for one more name", ca(func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, "docker.io") }), "docker.io"},
		{"a CA for the whole of .test", ca(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"test"} }), "may sign for test"},
		{"a CA for any address", ca(func(c *x509.Certificate) { c.ExcludedIPRanges = nil }), "other addresses"},
		{"a CA for any IPv6 address", ca(func(c *x509.Certificate) { c.ExcludedIPRanges = c.ExcludedIPRanges[:1] }), "other addresses"},

		{"another domain", names("evil.test:5000"), "this host joined " + registryName},
		{"another port", names("registry.test:5001"), "this host joined " + registryName},
		{"our domain second", names("evil.test:5000", registryName), "this host joined " + registryName},
		{"no names", names(), "0 names"},
		{"too many names", names(manyNames...), "101 names"},
		{"an alias that the CA is not for", names(registryName, "docker.io:443"), "may sign for"},
		{"an alias that is a path", names(registryName, "../../etc:5000"), "has a path"},
		{"an alias with a zero byte", names(registryName, "a\x00b:5000"), "is no DNS name"},

		{"a leaf that is none", func(w *pb.Wanted) { w.Generation, w.Leaves[0].Certificate = 50, []byte("x") }, "does not parse"},
		{"too many leaves", func(w *pb.Wanted) { w.Generation, w.Leaves = 50, slices.Repeat(w.Leaves[:1], 201) }, "201 leaves"},
		{"a short gossip key", func(w *pb.Wanted) { w.Generation, w.Gossip = 50, &pb.Gossip{Keys: [][]byte{make([]byte, 16)}} }, "32 bytes"},
		{"too many gossip keys", func(w *pb.Wanted) {
			w.Generation, w.Gossip = 50, &pb.Gossip{Keys: slices.Repeat([][]byte{make([]byte, 32)}, 9)}
		}, "too many"},
		{"too many peers", func(w *pb.Wanted) {
			w.Generation, w.Gossip = 50, &pb.Gossip{Peers: slices.Repeat([]string{"10.0.0.1:7947"}, 65)}
		}, "too many"},
	}
}

// crossSigned is a CA that another one signed.
func crossSigned(t *testing.T, issuer pair) []byte {
	t.Helper()
	template := caTemplate()
	template.Subject.CommonName = "signed by another"
	parent := &x509.Certificate{Subject: issuer.cert.Subject, SubjectKeyId: issuer.cert.SubjectKeyId}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, newKey(t).Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// captured starts a host that obeys an evil server with the real control CA's
// key, and has accepted generation 10 from it. Only vetting is in the way now.
func captured(t *testing.T, w *world) (m *machine, e *evil, good *pb.Wanted) {
	t.Helper()
	m = w.join("web")
	m.stop()
	raw := w.rawHost("raw")
	s := w.sync(&raw.pair)
	s.report(&pb.Report{})
	good = proto.CloneOf(s.wanted())
	good.Generation, good.Revision, good.Tick = 10, 100, durationpb.New(tick)
	real := w.steal()
	e = w.evilServer(real, real.server.key, real.server.cert, real.ca.cert)
	m.cfg.Server = evilAddress
	e.wants(good)
	m.start()
	until(t, "generation 10 is accepted", func() bool {
		r := e.reported()
		return r.GetGeneration() == 10 && r.GetProblem() == ""
	})
	return m, e, good
}

// TestOffersAreVetted: a server with the control CA's key can make an agent
// install nothing but the next CAs of its registry.
func TestOffersAreVetted(t *testing.T) {
	t.Parallel()
	w := start(t)
	m, e, good := captured(t, w)
	before, beforeStatus := m.trust(), m.status()
	revision := good.GetRevision()
	next := func(spoil func(*pb.Wanted)) *pb.Wanted {
		offer := proto.CloneOf(good)
		revision++
		offer.Revision = revision
		spoil(offer)
		return offer
	}
	for _, bad := range badOffers(t, good) {
		t.Run(bad.name, func(t *testing.T) {
			e.wants(next(bad.spoil))
			until(t, "the report says why", func() bool { return strings.Contains(e.reported().GetProblem(), bad.says) })
			until(t, "the status says why", func() bool { return strings.Contains(m.status().Problem, bad.says) })
			if r := e.reported(); r.GetGeneration() != 10 || r.GetFingerprint() != beforeStatus.Fingerprint || !r.GetOffline() {
				t.Errorf("it reports generation %d %s", r.GetGeneration(), r.GetFingerprint())
			}
			same(t, before, m.trust())
			if s := m.status(); s.Generation != 10 || s.Fingerprint != beforeStatus.Fingerprint {
				t.Errorf("it trusts generation %d %s", s.Generation, s.Fingerprint)
			}
		})
	}
	t.Run("again and again", func(t *testing.T) {
		first := e.reported().GetSequence()
		until(t, "the last refusal stands in the next report too", func() bool { return e.reported().GetSequence() > first })
		if got := e.reported().GetProblem(); !strings.Contains(got, "too many") {
			t.Errorf("it says %q", got)
		}
		e.wants(next(func(*pb.Wanted) {}))
		until(t, "a good offer ends it", func() bool { r := e.reported(); return r != nil && r.GetProblem() == "" })
	})
	t.Run("a message too big", func(t *testing.T) {
		e.wants(next(func(w *pb.Wanted) { w.Generation, w.Bundle = 50, [][]byte{make([]byte, 2<<20)} }))
		until(t, "the status says why", func() bool { return strings.Contains(m.status().Problem, "larger than max") })
		same(t, before, m.trust())
	})
	t.Run("an older generation after a restart", func(t *testing.T) {
		m.stop()
		e.wants(next(func(w *pb.Wanted) { w.Generation = 9 }))
		m.start()
		until(t, "the report says why", func() bool { return strings.Contains(e.reported().GetProblem(), "accepted generation 10 already") })
		same(t, before, m.trust())
	})
	t.Run("honest: the next CA", func(t *testing.T) {
		fine := registryCA(t, func(*x509.Certificate) {})
		e.wants(next(func(w *pb.Wanted) { w.Generation, w.Bundle = 11, [][]byte{w.GetBundle()[0], fine} }))
		until(t, "it is installed", func() bool { r := e.reported(); return r.GetGeneration() == 11 && r.GetProblem() == "" })
		for path, content := range m.trust() {
			if !bytes.Contains([]byte(content), certs.EncodePEM(parse(t, fine))) {
				t.Errorf("%s does not have it", path)
			}
		}
	})
}

// TestJoinSaysWhatItRefused: a first state that is refused ends a join with the
// reason, and installs nothing.
func TestJoinSaysWhatItRefused(t *testing.T) {
	t.Parallel()
	w := start(t)
	real := w.steal()
	e := w.evilServer(real, real.server.key, real.server.cert, real.ca.cert)
	e.wants(&pb.Wanted{
		Revision: 5, Generation: 5, Names: []string{registryName}, Tick: durationpb.New(tick),
		Bundle: [][]byte{registryCA(t, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"docker.io"} })},
	})
	m := w.machine("joining")
	m.cfg.Server, m.cfg.Token = evilAddress, w.token(&pb.CreateTokenRequest{})
	_, err := agent.Join(call(t), m.cfg)
	if err == nil || !strings.Contains(err.Error(), "docker.io") {
		t.Errorf("join says: %v", err)
	}
	if files := m.trust(); len(files) > 0 {
		t.Errorf("it installed %v", files)
	}
}
