package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// authorityFor makes a CA for registry.test and aliases, and a leaf with its key.
func authorityFor(t *testing.T, host string, aliases ...string) (*x509.Certificate, tls.Certificate) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	names := []certs.Name{{Host: "registry.test", Port: 5000}}
	for _, alias := range aliases {
		names = append(names, certs.Name{Host: alias, Port: 5000})
	}
	ca, err := certs.NewCA(certs.CATemplate{
		Names: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.SignLeaf(host, key.Public(), now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ca.Cert, tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// serveTLS answers handshakes with pair until the test ends.
func serveTLS(t *testing.T, pair tls.Certificate, protocols ...string) string {
	t.Helper()
	lis, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: protocols, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // the client's verdict is the one that counts
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = lis.Close()
		<-done
	})
	return lis.Addr().String()
}

// TestHandshakeOutcomes: each outcome of part (d) of evidence, against a real
// TLS server.
func TestHandshakeOutcomes(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	stranger, other := authorityFor(t, "registry.test")
	_, wrong := authorityFor(t, "wrong.registry.test")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	unresolved := &net.DNSError{Err: "no such host", Name: "registry.test", IsNotFound: true}

	for what, c := range map[string]struct {
		address  string
		lookup   error // of the name; the fallback is then dialled
		expected *x509.Certificate
		roots    []*x509.Certificate
		next     bool
		want     certs.Outcome
	}{
		"good":                      {serveTLS(t, pair), nil, pair.Leaf, []*x509.Certificate{ca}, false, certs.OK},
		"good, of two roots":        {serveTLS(t, pair), nil, pair.Leaf, []*x509.Certificate{stranger, ca}, false, certs.OK},
		"good, the future one":      {serveTLS(t, pair, nextProtocol), nil, pair.Leaf, []*x509.Certificate{ca}, true, certs.OK},
		"the root is not here":      {serveTLS(t, pair), nil, pair.Leaf, []*x509.Certificate{stranger}, false, certs.Refused},
		"no roots":                  {serveTLS(t, pair), nil, pair.Leaf, nil, false, certs.Refused},
		"the name is wrong":         {serveTLS(t, wrong), nil, wrong.Leaf, []*x509.Certificate{ca}, false, certs.Refused},
		"another certificate":       {serveTLS(t, other), nil, pair.Leaf, []*x509.Certificate{ca, stranger}, false, certs.Intercepted},
		"nothing staged":            {serveTLS(t, pair, "http/1.1"), nil, pair.Leaf, []*x509.Certificate{ca}, true, certs.Unreachable},
		"a server without ALPN":     {serveTLS(t, pair), nil, pair.Leaf, []*x509.Certificate{ca}, true, certs.Intercepted},
		"nobody":                    {nobody, nil, pair.Leaf, []*x509.Certificate{ca}, false, certs.Unreachable},
		"no address, but the other": {serveTLS(t, pair), unresolved, pair.Leaf, []*x509.Certificate{ca}, false, certs.OK},
		"no address at all":         {nobody, unresolved, pair.Leaf, []*x509.Certificate{ca}, false, certs.Unresolved},
	} {
		t.Run(what, func(t *testing.T) {
			a := &membership{cfg: Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "registry.test") {
					if c.lookup != nil {
						return nil, c.lookup
					}
					address = c.address
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}}.withDefaults()}
			names := []certs.Name{{Host: "registry.test", Port: 5000}}
			leaves := []leaf{{host: "registry.test", cert: c.expected, next: c.next}}
			got, why := a.shake(t.Context(), names, leaves, c.roots, c.next, c.address)
			if got != c.want {
				t.Errorf("%q (%s), want %q", got, why, c.want)
			}
			if (why == "") != (got == certs.OK) {
				t.Errorf("%q says %q", got, why)
			}
		})
	}
}

// TestWorstOutcomeCounts: one name that is refused is not hidden by others.
func TestWorstOutcomeCounts(t *testing.T) {
	order := []certs.Outcome{certs.NotTried, certs.OK, certs.Unresolved, certs.Unreachable, certs.Intercepted, certs.Refused}
	for i := 1; i < len(order); i++ {
		if rank(order[i]) <= rank(order[i-1]) {
			t.Errorf("%q does not outrank %q", order[i], order[i-1])
		}
	}
}

// TestProveAlone: part (c) of evidence, each leaf by its own issuer and nothing
// else.
func TestProveAlone(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	next, nextPair := authorityFor(t, "registry.test")
	bad, badPair := authorityFor(t, "wrong.registry.test")
	current := leaf{host: "registry.test", cert: pair.Leaf}
	future := leaf{host: "registry.test", cert: nextPair.Leaf, next: true}
	wrong := leaf{host: "registry.test", cert: badPair.Leaf, next: true}
	for what, c := range map[string]struct {
		roots   []*x509.Certificate
		leaves  []leaf
		want    []*x509.Certificate
		problem bool
	}{
		"both":              {[]*x509.Certificate{ca, next}, []leaf{current, future}, []*x509.Certificate{ca, next}, false},
		"only the old root": {[]*x509.Certificate{ca}, []leaf{current, future}, []*x509.Certificate{ca}, false},
		"a wrong name":      {[]*x509.Certificate{ca, bad}, []leaf{current, wrong}, []*x509.Certificate{ca}, true},
		"one of two names wrong": {[]*x509.Certificate{bad}, []leaf{
			{host: "wrong.registry.test", cert: badPair.Leaf}, wrong}, nil, true},
		"a root that issued nothing": {[]*x509.Certificate{next}, []leaf{current}, nil, false},
		"nothing on disk":            {nil, []leaf{current, future}, nil, false},
	} {
		solo, problem := proveAlone(c.roots, c.leaves, time.Now())
		var want []certs.Fingerprint
		for _, root := range c.want {
			want = append(want, certs.FingerprintOf(root))
		}
		if len(solo) != len(want) || (problem != "") != c.problem {
			t.Errorf("%s: %v, %q", what, solo, problem)
			continue
		}
		for i := range want {
			if solo[i] != want[i] {
				t.Errorf("%s: root %d", what, i)
			}
		}
	}
}
