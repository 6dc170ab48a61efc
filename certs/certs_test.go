package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func names(t *testing.T, all ...string) []Name {
	t.Helper()
	var out []Name
	for _, s := range all {
		n, err := ParseName(s, DefaultPort)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

func newCA(t *testing.T, number uint64, all ...string) CA {
	t.Helper()
	ca, err := NewCA(CATemplate{
		Subject: pkix.Name{Organization: []string{"Example"}}, Number: number, Names: names(t, all...),
		NotBefore: now.Add(-CABackdate), NotAfter: now.AddDate(1, 0, 0),
	}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newLeaf(t *testing.T, ca CA, host string) *x509.Certificate {
	t.Helper()
	leaf, err := ca.SignLeaf(host, newKey(t).Public(), now.Add(-LeafBackdate), now.AddDate(0, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestParseName(t *testing.T) {
	for in, want := range map[string]string{
		"registry.example.com":        "registry.example.com:5000",
		"registry.example.com:443":    "registry.example.com:443",
		"localhost":                   "localhost:5000",
		"10.1.2.3:5001":               "10.1.2.3:5001",
		"xn--bcher-kva.example":       "xn--bcher-kva.example:5000",
		"a" + strings.Repeat("b", 62): "a" + strings.Repeat("b", 62) + ":5000",
	} {
		if n, err := ParseName(in, DefaultPort); err != nil || n.String() != want {
			t.Errorf("%q: %v, %v; want %s", in, n, err, want)
		}
	}
	for in, says := range map[string]string{
		"":                                "empty",
		":5000":                           "empty",
		"https://registry.example.com":    "scheme",
		"registry.example.com/team":       "path",
		"../../etc":                       "path",
		`..\..`:                           "path",
		"registry.example.com:0":          "out of range",
		"registry.example.com:65536":      "out of range",
		"registry.example.com:5000x":      "out of range",
		"registry.example.com:+5000":      "out of range",
		"registry.example.com:":           "out of range",
		"[::1]:5000":                      "IPv6",
		"Registry.example.com":            "upper-case",
		"registry..example.com":           "no DNS name",
		"..":                              "no DNS name",
		"-a.example.com":                  "no DNS name",
		"a b":                             "no DNS name",
		"registry_1.example.com":          "no DNS name",
		"999.1.2.3":                       "ends in a number",
		strings.Repeat("a", 64) + ".com":  "no DNS name",
		strings.Repeat("a.", 130) + "com": "253",
	} {
		if n, err := ParseName(in, DefaultPort); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v; want an error with %q", in, n, err, says)
		}
	}
}

func TestDirs(t *testing.T) {
	if got := (Name{Host: "r.example", Port: 443}).Dirs(); strings.Join(got, " ") != "r.example:443 r.example" {
		t.Errorf("port 443: %v", got)
	}
	if got := (Name{Host: "r.example", Port: 5000}).Dirs(); strings.Join(got, " ") != "r.example:5000" {
		t.Errorf("port 5000: %v", got)
	}
}

// TestPredecessors: a chain of rotations verifies for whoever trusts any of the
// CAs, and for nobody without its link.
func TestPredecessors(t *testing.T) {
	const host = "registry.example.com"
	cas := []CA{newCA(t, 1, host)}
	var links []*x509.Certificate // newest first
	for i := uint64(2); i <= 6; i++ {
		next := newCA(t, i, host)
		link, err := cas[len(cas)-1].SignNext(next.Cert)
		if err != nil {
			t.Fatal(err)
		}
		links = append([]*x509.Certificate{link}, links...)
		cas = append(cas, next)
	}
	leaf := newLeaf(t, cas[5], host)
	served := append([]*x509.Certificate{leaf}, links...)
	for i, ca := range cas {
		if err := VerifyServed(served, []*x509.Certificate{ca.Cert}, host, now); err != nil {
			t.Errorf("a host that trusts CA %d alone: %v", i+1, err)
		}
		alone := VerifyAlone(leaf, ca.Cert, host, now)
		if newest := i == len(cas)-1; newest != (alone == nil) {
			t.Errorf("CA %d verifies the leaf alone: %v", i+1, alone)
		}
	}
	if err := VerifyServed(served[:3], []*x509.Certificate{cas[0].Cert}, host, now); err == nil {
		t.Error("a host that trusts CA 1 verifies without its link")
	}
	if err := VerifyServed(served, []*x509.Certificate{newCA(t, 1, host).Cert}, host, now); err == nil {
		t.Error("a stranger's root verifies")
	}
	if err := VerifyServed(nil, []*x509.Certificate{cas[0].Cert}, host, now); err == nil {
		t.Error("an empty chain verifies")
	}
}

// TestConstraints: a stolen CA key signs for the registry's names and no others.
func TestConstraints(t *testing.T) {
	dns, ip := newCA(t, 1, "registry.example.com", "mirror.example.com"), newCA(t, 1, "10.1.2.3")
	for _, c := range []struct {
		ca   CA
		host string
		ok   bool
	}{
		{dns, "registry.example.com", true},
		{dns, "mirror.example.com", true},
		{dns, "docker.io", false},
		{dns, "10.1.2.3", false},
		{ip, "10.1.2.3", true},
		{ip, "10.1.2.4", false},
		{ip, "registry.example.com", false},
	} {
		err := VerifyAlone(newLeaf(t, c.ca, c.host), c.ca.Cert, c.host, now)
		if (err == nil) != c.ok {
			t.Errorf("%q signs for %s: %v, want ok %v", c.ca.Cert.Subject.CommonName, c.host, err, c.ok)
		}
	}
}

func TestLeafEndsWithItsCA(t *testing.T) {
	ca := newCA(t, 1, "registry.example.com")
	leaf, err := ca.SignLeaf("registry.example.com", newKey(t).Public(), now.AddDate(-1, 0, 0), now.AddDate(5, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Equal(ca.Cert.NotAfter) || !leaf.NotBefore.Equal(ca.Cert.NotBefore) {
		t.Errorf("leaf %s to %s, CA %s to %s", leaf.NotBefore, leaf.NotAfter, ca.Cert.NotBefore, ca.Cert.NotAfter)
	}
}

func TestDestroyedKeySignsNothing(t *testing.T) {
	ca := newCA(t, 1, "registry.example.com")
	ca.Key = nil
	if _, err := ca.SignLeaf("registry.example.com", newKey(t).Public(), now, now); err == nil {
		t.Error("a leaf without a key")
	}
	if _, err := ca.SignNext(newCA(t, 2, "registry.example.com").Cert); err == nil {
		t.Error("a predecessor without a key")
	}
}

// altered makes a self-signed certificate like ours, with one thing wrong.
func altered(t *testing.T, change func(*x509.Certificate)) []byte {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "altered"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
		KeyUsage: x509.KeyUsageCertSign, PermittedDNSDomainsCritical: true,
	}
	constrain(template, names(t, "registry.example.com"))
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestParseBundle(t *testing.T) {
	domain := names(t, "registry.example.com")
	a, b := newCA(t, 1, "registry.example.com").Cert.Raw, newCA(t, 2, "registry.example.com").Cert.Raw
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCA, err := NewCA(CATemplate{Names: domain, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := CA{Cert: newCA(t, 1, "registry.example.com").Cert, Key: newKey(t)}.SignNext(newCA(t, 2, "registry.example.com").Cert)
	if err == nil {
		t.Fatal("signed with a key that is not the CA's", signed.Subject)
	}
	for _, c := range []struct {
		what string
		gen  uint64
		ders [][]byte
		says string // "" is accepted
	}{
		{"one", 1, [][]byte{a}, ""},
		{"two", 1, [][]byte{a, b}, ""},
		{"an unaltered one", 1, [][]byte{altered(t, func(*x509.Certificate) {})}, ""},
		{"no generation", 0, [][]byte{a}, "no generation"},
		{"none", 1, nil, "0 certificates"},
		{"three", 1, [][]byte{a, b, a}, "3 certificates"},
		{"one twice", 1, [][]byte{a, a}, "twice"},
		{"garbage", 1, [][]byte{[]byte("garbage")}, "does not parse"},
		{"huge", 1, [][]byte{make([]byte, maxCertificate+1)}, "at most"},
		{"no CA", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.IsCA = false })}, "is no CA"},
		{"no signing", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })}, "may not sign"},
		{"path length", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.MaxPathLen = 0; c.MaxPathLenZero = true })}, "path length"},
		{"ended", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.NotAfter = now })}, "ended"},
		{"not yet", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) })}, "clock"},
		{"RSA", 1, [][]byte{rsaCA.Cert.Raw}, "P-256"},
		{"not critical", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false })}, "critical"},
		{"another domain", 1, [][]byte{newCA(t, 1, "docker.io").Cert.Raw}, "may sign for docker.io"},
		{"one domain more", 1, [][]byte{newCA(t, 1, "registry.example.com", "docker.io").Cert.Raw}, "may sign for"},
		{"addresses", 1, [][]byte{altered(t, func(c *x509.Certificate) { c.ExcludedIPRanges = nil })}, "other addresses"},
	} {
		_, err := ParseBundle(c.gen, c.ders, domain, now, "")
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
}

func TestFingerprintIgnoresOrder(t *testing.T) {
	a, b := newCA(t, 1, "registry.example.com").Cert, newCA(t, 2, "registry.example.com").Cert
	if FingerprintOf(a, b) != FingerprintOf(b, a) || FingerprintOf(a) == FingerprintOf(b) || FingerprintOf() != "" {
		t.Error("fingerprints depend on order, or do not tell bundles apart")
	}
}

func TestParsePEM(t *testing.T) {
	a, b := newCA(t, 1, "registry.example.com").Cert, newCA(t, 2, "registry.example.com").Cert
	good := Bundle{Generation: 1, Roots: []*x509.Certificate{a, b}}
	got, err := ParsePEM(good.PEM())
	if err != nil || FingerprintOf(got...) != good.Fingerprint() {
		t.Fatalf("round trip: %v", err)
	}
	for what, data := range map[string][]byte{
		"empty":     nil,
		"garbage":   []byte("hello"),
		"truncated": good.PEM()[:len(good.PEM())-20],
		"tail":      append(good.PEM(), "hello"...),
		"a key":     []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"huge":      make([]byte, maxPEM+1),
	} {
		if _, err := ParsePEM(data); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestToken(t *testing.T) {
	made, err := NewToken(Pin(newCA(t, 1, "registry.example.com").Cert))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("  " + made.String() + "\n")
	if err != nil || got.String() != made.String() {
		t.Fatalf("round trip: %v", err)
	}
	if !SecretMatches(got.Secret, SecretHash(made.Secret)) || SecretMatches(got.Secret[1:], SecretHash(made.Secret)) {
		t.Error("the secret is compared wrongly")
	}
	parts := strings.Split(made.String(), ".")
	for what, s := range map[string]string{
		"empty":     " ",
		"cut":       made.String()[:30],
		"version":   "tc2." + strings.Join(parts[1:], "."),
		"secret":    strings.Join([]string{parts[0], parts[1], parts[2][1:], parts[3]}, "."),
		"id":        strings.Join([]string{parts[0], "../../../../x", parts[2], parts[3]}, "."),
		"pin":       strings.Join([]string{parts[0], parts[1], parts[2], parts[3][2:]}, "."),
		"nine pins": strings.Join([]string{parts[0], parts[1], parts[2], strings.Repeat(parts[3]+",", 8) + parts[3]}, "."),
		"huge":      made.String() + strings.Repeat("A", maxToken),
	} {
		_, err := ParseToken(s)
		if err == nil {
			t.Errorf("%s: accepted", what)
		} else if strings.Contains(err.Error(), parts[2]) {
			t.Errorf("%s: the error repeats the secret: %v", what, err)
		}
	}
}

func TestEvidenceOrder(t *testing.T) {
	old := Evidence{Boot: 2, Sequence: 5}
	for e, newer := range map[[2]uint64]bool{{2, 6}: true, {3, 1}: true, {2, 5}: false, {2, 4}: false, {1, 9}: false} {
		if got := (Evidence{Boot: e[0], Sequence: e[1]}).NewerThan(old); got != newer {
			t.Errorf("%v newer than 2,5: %v", e, got)
		}
	}
}
