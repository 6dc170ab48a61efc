package edge

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
)

func TestPublishRefusesAndKeepsTheOld(t *testing.T) {
	f := newFront(t, ok)
	ca2, ca3, foreign := newCA(t, 2), newCA(t, 3), newCA(t, 9)
	next := pairs(t, ca2, follow(t, f.ca, ca2))
	before := pairs(t, f.ca)
	must(t, f.Publish(before, next))
	served := f.leaf(t, domain, pool(f.ca))

	day := 24 * time.Hour
	swapped := *pair(t, f.ca, domain, day)
	swapped.PrivateKey = newKey(t)
	servedOtherKey := maps.Clone(before)
	rekeyed := *before[domain]
	rekeyed.PrivateKey = newKey(t)
	servedOtherKey[domain] = &rekeyed
	keyless := *pair(t, f.ca, domain, day)
	keyless.PrivateKey = nil
	garbage := *pair(t, f.ca, domain, day)
	garbage.Certificate = [][]byte{[]byte("garbage")}
	noCA, err := x509.ParseCertificate(pair(t, ca2, domain, day).Certificate[0])
	must(t, err)
	link := follow(t, f.ca, ca2)
	narrow, err := certs.NewCA(certs.CATemplate{
		Number: 4, Names: []certs.Name{{Host: alias, Port: 5000}},
		NotBefore: f.ca.Cert.NotBefore, NotAfter: f.ca.Cert.NotAfter,
	}, newKey(t))
	must(t, err)

	for name, c := range map[string]struct {
		bad  map[string]*tls.Certificate
		want string
	}{
		"none at all":         {nil, "none for the domain"},
		"no domain":           {map[string]*tls.Certificate{alias: pair(t, f.ca, alias, day)}, "none for the domain"},
		"nil":                 {map[string]*tls.Certificate{domain: nil}, "empty"},
		"empty":               {map[string]*tls.Certificate{domain: {}}, "empty"},
		"garbage":             {map[string]*tls.Certificate{domain: &garbage}, "does not parse"},
		"another key":         {map[string]*tls.Certificate{domain: &swapped}, "private key"},
		"served, another key": {servedOtherKey, "private key"},
		"no key":              {map[string]*tls.Certificate{domain: &keyless}, "private key"},
		"another name":        {map[string]*tls.Certificate{domain: pair(t, f.ca, alias, day)}, "valid for mirror.test"},
		"upper case":          {map[string]*tls.Certificate{domain: pair(t, f.ca, domain, day), "Mirror.test": pair(t, f.ca, alias, day)}, "upper-case"},
		"link of another CA":  {map[string]*tls.Certificate{domain: pair(t, ca3, domain, day, link)}, "link 1"},
		"link without rights": {map[string]*tls.Certificate{domain: pair(t, ca2, domain, day, noCA)}, "link 1"},
		"links out of order":  {map[string]*tls.Certificate{domain: pair(t, ca3, domain, day, link, follow(t, ca2, ca3))}, "link 1"},
		"a gap in the links":  {map[string]*tls.Certificate{domain: pair(t, ca3, domain, day, follow(t, ca2, ca3), follow(t, foreign, f.ca))}, "link 2"},
		"not its CA's name":   {map[string]*tls.Certificate{domain: pair(t, narrow, domain, day, follow(t, f.ca, narrow))}, "would refuse it"},
		"one bad of two":      {map[string]*tls.Certificate{domain: pair(t, f.ca, domain, day), alias: &swapped}, "private key"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := f.Publish(c.bad, next); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("as current: %v, want %q", err, c.want)
			}
			if c.bad == nil {
				return // nothing staged is no error
			}
			if err := f.Publish(pairs(t, f.ca), c.bad); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("as next: %v, want %q", err, c.want)
			}
		})
	}
	current, staged := f.Serving()
	if !sameLeaves(current, before) || !sameLeaves(staged, next) {
		t.Error("a refused pair changed what is served")
	}
	if now := f.leaf(t, domain, pool(f.ca)); !now.Equal(served) {
		t.Error("clients get another leaf")
	}
}

func sameLeaves(a, b map[string]*tls.Certificate) bool {
	return maps.EqualFunc(a, b, func(a, b *tls.Certificate) bool { return slices.Equal(a.Certificate[0], b.Certificate[0]) })
}

// TestNotYetValid: what is served may be valid later by this clock, since clients
// have their own; what is offered for the future may not.
func TestNotYetValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, 1)
		key := newKey(t)
		leaf, err := ca.SignLeaf(domain, key.Public(), time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
		must(t, err)
		e := New(Config{Domain: domain})
		p := map[string]*tls.Certificate{domain: {Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}
		must(t, e.Publish(p, nil))
		if err := e.Publish(p, p); err == nil || !strings.Contains(err.Error(), "valid only from") {
			t.Errorf("offered: %v", err)
		}
		time.Sleep(time.Hour) // simulated
		must(t, e.Publish(p, p))
	})
}

// A host with any one of the CAs verifies a leaf with all its predecessors.
func TestPredecessors(t *testing.T) {
	f := newFront(t, ok)
	cas := []certs.CA{f.ca, newCA(t, 2), newCA(t, 3), newCA(t, 4)}
	var links []*x509.Certificate
	for i := 1; i < len(cas); i++ {
		links = append([]*x509.Certificate{follow(t, cas[i-1], cas[i])}, links...)
	}
	must(t, f.Publish(pairs(t, cas[3], links...), nil))
	for i, ca := range cas {
		t.Logf("CA %d", i+1)
		f.leaf(t, domain, pool(ca))
	}
	if _, err := f.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(newCA(t, 5))}); err == nil {
		t.Error("a client with a foreign CA verified the leaf")
	}
}

// A link that has ended must not keep a good leaf from being served.
func TestEndedLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, ca := newCA(t, 1), newCA(t, 2)
		link := follow(t, old, ca)
		time.Sleep(999 * time.Hour) // an hour before the CAs end
		next := newCA(t, 3)
		e := New(Config{Domain: domain})
		p := pairs(t, next, follow(t, ca, next), link)
		must(t, e.Publish(p, nil))
		time.Sleep(2 * time.Hour)
		must(t, e.Publish(p, nil))
	})
}

func TestChosenByName(t *testing.T) {
	f := newFront(t, ok)
	for name, want := range map[string]string{domain: domain, alias: alias, "REGISTRY.test": domain, "Mirror.Test": alias, "unknown.test": domain, "": domain} {
		conn, err := f.handshake(t, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // the name is what is tested
		must(t, err)
		if got := conn.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("asked for %q, got the leaf of %s, want %s", name, got, want)
		}
	}
}

func TestNothingPublished(t *testing.T) {
	f := newFront(t, ok)
	f.certs.Store(nil)
	if _, err := f.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(f.ca)}); err == nil {
		t.Error("a handshake without certificates")
	}
	if current, next := f.Serving(); current != nil || next != nil {
		t.Error("something is served")
	}
}

// next is a ClientHello as a host sends it to look at the staged chain.
func next(cas ...certs.CA) *tls.Config {
	return &tls.Config{ServerName: domain, RootCAs: pool(cas...), NextProtos: []string{NextProtocol}}
}

func TestProbeOfTheStagedChain(t *testing.T) {
	f := newFront(t, ok)
	ca2 := newCA(t, 2)
	current, staged := pairs(t, f.ca), pairs(t, ca2, follow(t, f.ca, ca2))
	must(t, f.Publish(current, staged))

	conn, err := f.handshake(t, next(ca2))
	must(t, err)
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != NextProtocol || !slices.Equal(state.PeerCertificates[0].Raw, staged[domain].Certificate[0]) {
		t.Errorf("got protocol %q and the leaf of %v", state.NegotiatedProtocol, state.PeerCertificates[0].Issuer)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("the server said %d bytes after the handshake", n)
	}
	if _, err := f.handshake(t, next(newCA(t, 3))); err == nil {
		t.Error("a host without the new CA verified the staged chain")
	}

	// Nobody else is offered it, and everybody else gets what is served.
	for _, offered := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}, {NextProtocol, "http/1.1"}, {"http/1.1", NextProtocol}} {
		conn, err := f.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(f.ca), NextProtos: offered})
		must(t, err)
		state := conn.ConnectionState()
		if state.NegotiatedProtocol == NextProtocol || state.NegotiatedProtocol == "h2" || !slices.Equal(state.PeerCertificates[0].Raw, current[domain].Certificate[0]) {
			t.Errorf("offering %q got protocol %q and the leaf of %v", offered, state.NegotiatedProtocol, state.PeerCertificates[0].Issuer)
		}
	}
}

func TestProbeWhenNothingIsStaged(t *testing.T) {
	f := newFront(t, ok)
	ca2 := newCA(t, 2)
	for _, staged := range []bool{false, true, false} {
		var chain map[string]*tls.Certificate
		if staged {
			chain = pairs(t, ca2)
		}
		must(t, f.Publish(pairs(t, f.ca), chain))
		_, err := f.handshake(t, next(ca2))
		if staged {
			must(t, err)
		} else if err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("probing with nothing staged: %v", err)
		}
	}
}

// Each handshake shows the certificate: none is resumed.
func TestNoResumption(t *testing.T) {
	f := newFront(t, ok)
	ca2 := newCA(t, 2)
	must(t, f.Publish(pairs(t, f.ca), pairs(t, ca2)))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, protocol := range []string{http1Protocol, NextProtocol} {
			cfg := &tls.Config{ServerName: domain, RootCAs: pool(f.ca, ca2), NextProtos: []string{protocol}, MinVersion: version, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
			for range 3 {
				conn, err := f.handshake(t, cfg)
				must(t, err)
				if conn.ConnectionState().DidResume {
					t.Errorf("%s resumed %s", tls.VersionName(version), protocol)
				}
				// TLS 1.3 sends tickets after the handshake.
				_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				_, _ = conn.Read(make([]byte, 1))
			}
		}
	}
	if _, err := f.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(f.ca), MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was served")
	}
}

// TestEndedLeaf: a leaf that ended is not offered as the next one, but goes on
// being served: a rotation must be able to replace it.
func TestEndedLeaf(t *testing.T) {
	f := newFront(t, ok)
	ended := map[string]*tls.Certificate{domain: pair(t, f.ca, domain, time.Minute)}
	if err := f.Publish(pairs(t, f.ca), ended); err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("as next: %v", err)
	}
	if err := f.Publish(ended, nil); err != nil {
		t.Errorf("as current: %v", err)
	}
}
