package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fuzzDomain is the registry of every fuzzed bundle.
const fuzzDomain = "registry.example.com"

// longSecret is what a secret looks like; no word of an error is as long.
var longSecret = regexp.MustCompile(`^[A-Za-z0-9_-]{16,}$`)

func FuzzParseToken(f *testing.F) {
	pin := strings.Repeat("A", 43)
	made, err := NewToken(pin, pin)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := ParseToken(made.String()); err != nil {
		f.Fatalf("a good token is refused: %v", err)
	}
	f.Add(made.String())
	f.Add("tc1.0123456789ab.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA." + pin)
	f.Add("tc1.0123456789ab.AAAAAAAAAAAAAAAAAAAA\nAAAAAAAAAAAA." + pin[:20] + "\r\n" + pin[20:]) // wrapped by a terminal
	f.Add("tc1.0123456789ab.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA." + pin[1:] + "B")                  // spare bits set
	f.Add("tc2.0123456789ab.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA." + pin)
	f.Add("tc1...")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if parts := strings.Split(s, "."); len(parts) > 2 && longSecret.MatchString(parts[2]) && strings.Contains(err.Error(), parts[2]) {
				t.Errorf("the error repeats the secret: %v", err)
			}
			return
		}
		again, err := ParseToken(token.String())
		if err != nil || !reflect.DeepEqual(again, token) {
			t.Errorf("%q is read as %+v, then as %+v (%v)", s, token, again, err)
		}
		for _, pin := range token.Pins {
			if len(pin) != 43 || strings.ContainsAny(pin, "\r\n") {
				t.Errorf("pin %q can match no key", pin)
			}
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{
		fuzzDomain, "registry.example.com:443", "10.1.2.3:5000", "localhost", "..", "a/../b:1", "a\x00b", "1.2.3", "[::1]:5000",
		"https://a", "A.b", "a.:5000", "-a", strings.Repeat("a.", 130) + "a", "a:65536", "a:+1", "xn--nxasmq6b", "010.1.1.1", "::ffff:1.2.3.4",
	} {
		f.Add(s)
	}
	if _, err := ParseName(fuzzDomain, DefaultPort); err != nil {
		f.Fatalf("a good name is refused: %v", err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s, DefaultPort)
		if err != nil {
			return
		}
		if again, err := ParseName(n.String(), DefaultPort+1); err != nil || again != n {
			t.Errorf("%q is read as %s, then as %s (%v)", s, n, again, err)
		}
		if n.Port < 1 || n.Port > 65535 || len(n.Host) > 253 || n.Host != strings.ToLower(n.Host) {
			t.Errorf("%q gives %+v", s, n)
		}
		for _, dir := range n.Dirs() {
			if !filepath.IsLocal(dir) || filepath.Dir(filepath.Join("/etc/docker/certs.d", dir)) != "/etc/docker/certs.d" || dir == "." {
				t.Errorf("%q makes the directory %q", s, dir)
			}
		}
	})
}

func FuzzParsePEM(f *testing.F) {
	a, b := fuzzCA(f), fuzzCA(f)
	good := EncodePEM(a, b)
	if _, err := ParsePEM(good); err != nil {
		f.Fatalf("a good file is refused: %v", err)
	}
	f.Add(good)
	f.Add(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")))
	f.Add(append([]byte("# a comment\n"), good...))
	f.Add(good[:len(good)-20])
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		roots, err := ParsePEM(data)
		if err != nil {
			return
		}
		again, err := ParsePEM(EncodePEM(roots...))
		if err != nil || len(again) != len(roots) || FingerprintOf(again...) != FingerprintOf(roots...) {
			t.Errorf("%d certificates, written and read again: %d (%v)", len(roots), len(again), err)
		}
		if len(roots) == 0 {
			t.Error("nothing passes for certificates")
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	domain := []Name{{Host: fuzzDomain, Port: DefaultPort}}
	a, b := fuzzCA(f).Raw, fuzzCA(f).Raw
	if _, err := ParseBundle(1, [][]byte{a, b}, domain, now, ""); err != nil {
		f.Fatalf("a good bundle is refused: %v", err)
	}
	f.Add(uint64(1), a, b)
	f.Add(uint64(1), a, []byte(nil))
	f.Add(uint64(1), a, a)
	f.Add(uint64(0), a, b)
	f.Add(uint64(1), a, append(bytes.Clone(b), 0))
	f.Fuzz(func(t *testing.T, generation uint64, first, second []byte) {
		ders := [][]byte{first}
		if len(second) > 0 {
			ders = append(ders, second)
		}
		bundle, err := ParseBundle(generation, ders, domain, now, "")
		if err != nil {
			return
		}
		again, err := ParsePEM(bundle.PEM())
		if err != nil || FingerprintOf(again...) != bundle.Fingerprint() || generation == 0 {
			t.Errorf("generation %d does not survive being installed: %v", generation, err)
		}
		if same, err := ParseBundle(generation, bundle.DER(), domain, now, ""); err != nil || same.Fingerprint() != bundle.Fingerprint() {
			t.Errorf("the bundle does not survive the way: %v", err)
		}
	})
}

// FuzzConstraints lets the author of a CA choose what is in it. Whatever passes
// must be unable to vouch for anybody else: judged by crypto/x509, not by the
// code under test.
func FuzzConstraints(f *testing.F) {
	good := func(change func(*caShape)) {
		s := caShape{DNS: fuzzDomain, Excluded: []byte{0}, Usage: int(x509.KeyUsageCertSign), Flags: isCA | critical, Depth: -1}
		change(&s)
		f.Add(s.DNS, s.NotDNS, s.Permitted, s.Excluded, s.Usage, s.Flags, s.Depth)
	}
	good(func(*caShape) {})
	good(func(s *caShape) { s.DNS += ",evil.test" })
	good(func(s *caShape) { s.DNS = "" })
	good(func(s *caShape) { s.DNS = "." + fuzzDomain })
	good(func(s *caShape) { s.DNS += ",com" })
	good(func(s *caShape) { s.NotDNS = fuzzDomain })
	good(func(s *caShape) { s.Excluded = nil })
	good(func(s *caShape) { s.Excluded = []byte{8} })
	good(func(s *caShape) { s.Permitted = []byte{0} })
	good(func(s *caShape) { s.Flags = isCA })
	good(func(s *caShape) { s.Flags = critical })
	good(func(s *caShape) { s.Depth = 0 })
	if names, err := vetted(f, caShape{DNS: fuzzDomain, Excluded: []byte{0}, Usage: int(x509.KeyUsageCertSign), Flags: isCA | critical, Depth: -1}); err != nil || len(names) > 0 {
		f.Fatalf("a good CA: %v, signs for %v", err, names)
	}
	// The control: a CA without constraints is seen to sign for anybody.
	if names, err := vetted(f, caShape{Usage: int(x509.KeyUsageCertSign), Flags: isCA, Depth: -1}); err == nil || len(names) == 0 {
		f.Fatalf("an unconstrained CA: %v, signs for %v", err, names)
	}
	f.Fuzz(func(t *testing.T, dns, notDNS string, permitted, excluded []byte, usage, flags, depth int) {
		names, err := vetted(t, caShape{dns, notDNS, permitted, excluded, usage, flags, depth})
		if err == nil && len(names) > 0 {
			t.Errorf("accepted, and signs for %v", names)
		}
	})
}

// caShape is what the author of a CA may choose; each byte of Permitted and
// Excluded is the prefix length of a range, IPv6 above 32.
type caShape struct {
	DNS, NotDNS         string // separated by commas
	Permitted, Excluded []byte
	Usage, Flags, Depth int
}

const (
	isCA = 1 << iota
	critical
)

// vetted makes a CA, vets it, and returns which foreign names it can sign for
// whatever vetting said. A shape that makes no certificate is refused.
func vetted(t testing.TB, s caShape) (foreign []string, err error) {
	key := fuzzKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fuzzed"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: s.Flags&isCA != 0, BasicConstraintsValid: true, MaxPathLen: s.Depth, MaxPathLenZero: s.Depth == 0,
		KeyUsage: x509.KeyUsage(s.Usage), PermittedDNSDomainsCritical: s.Flags&critical != 0,
		PermittedIPRanges: prefixes(s.Permitted), ExcludedIPRanges: prefixes(s.Excluded),
		PermittedDNSDomains: listed(s.DNS), ExcludedDNSDomains: listed(s.NotDNS),
	}
	ca, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	_, err = ParseBundle(1, [][]byte{ca.Raw}, []Name{{Host: fuzzDomain, Port: DefaultPort}}, now, "")
	for _, host := range []string{"evil.test", "docker.io", "example.com", "com", "10.0.0.1", "2001:db8::1"} {
		if leaf, signErr := (CA{Cert: ca, Key: key}).SignLeaf(host, key.Public(), now, now.Add(time.Hour)); signErr == nil && VerifyAlone(leaf, ca, host, now) == nil {
			foreign = append(foreign, host)
		}
	}
	return foreign, err
}

func listed(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func prefixes(lengths []byte) []*net.IPNet {
	var out []*net.IPNet
	for _, n := range lengths {
		if n == 0 { // everything, of both kinds
			out = append(out, &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)})
			continue
		}
		bits := 32
		if n > 32 {
			bits = 128
		}
		out = append(out, &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(min(int(n), bits), bits)})
	}
	return out
}

// theKey is made once: a fuzzed CA costs two signatures as it is.
var theKey *ecdsa.PrivateKey

func fuzzKey(t testing.TB) *ecdsa.PrivateKey {
	if theKey == nil {
		theKey = newKey(t)
	}
	return theKey
}

// fuzzCA makes a certificate as the server does.
func fuzzCA(t testing.TB) *x509.Certificate {
	ca, err := NewCA(CATemplate{
		Number: 1, Names: []Name{{Host: fuzzDomain, Port: DefaultPort}}, NotBefore: now.Add(-CABackdate), NotAfter: now.AddDate(1, 0, 0),
	}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return ca.Cert
}
