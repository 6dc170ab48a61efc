package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/plain"
)

const oldName = "registry.example.com"

var oldNow = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func parse(t *testing.T, data []byte) []*x509.Certificate {
	t.Helper()
	parsed, err := certs.ParsePEM(data)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestAdopt: what a host trusts already verifies what is served on, alone.
func TestAdopt(t *testing.T) {
	options := plain.Options{Now: oldNow}
	isCA := options
	isCA.Change = func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, 0 }
	for what, make := range map[string]func() (plain.Pair, error){
		"a leaf signed by itself": func() (plain.Pair, error) { return plain.SelfSigned(options, oldName) },
		"a CA that serves":        func() (plain.Pair, error) { return plain.SelfSigned(isCA, oldName) },
		"a company's":             func() (plain.Pair, error) { return plain.Company(options, false, oldName, "other.example.com") },
		"with an intermediate":    func() (plain.Pair, error) { return plain.Company(options, true, oldName) },
	} {
		t.Run(what, func(t *testing.T) {
			p, err := make()
			if err != nil {
				t.Fatal(err)
			}
			served := parse(t, p.Cert)
			a, err := certs.Adopt(served, parse(t, p.CA), oldName, oldNow)
			if err != nil {
				t.Fatal(err)
			}
			if err := certs.VerifyAlone(a.Leaf, a.Root, oldName, oldNow); err != nil {
				t.Errorf("the root alone: %v", err)
			}
			if err := certs.VerifyServed(append([]*x509.Certificate{a.Leaf}, a.Chain...), parse(t, p.CA), oldName, oldNow); err != nil {
				t.Errorf("a host with the old ca.crt: %v", err)
			}
			if !certs.Issued(a.Root, a.Leaf) {
				t.Error("evidence would leave the root out")
			}
			if len(a.Chain) != len(served)-1 {
				t.Errorf("%d certificates are served beside the leaf, were %d", len(a.Chain), len(served)-1)
			}
			if !a.Ends().Equal(p.Leaf.NotAfter) {
				t.Errorf("ends %s, the leaf %s", a.Ends(), p.Leaf.NotAfter)
			}
			adoptedBundle(t, a)
		})
	}
}

// adoptedBundle: the certificate is accepted by the fingerprint of the enrolment, and
// by nothing else.
func adoptedBundle(t *testing.T, a certs.Adopted) {
	t.Helper()
	names := []certs.Name{{Host: oldName, Port: certs.DefaultPort}}
	fp := certs.FingerprintOf(a.Root)
	ours := ourCA(t, names)
	for _, c := range []struct {
		what    string
		gen     uint64
		ders    [][]byte
		adopted certs.Fingerprint
		at      time.Time
		says    string
	}{
		{"day 0", 0, [][]byte{a.Root.Raw}, fp, oldNow, ""},
		{"beside ours", 1, [][]byte{a.Root.Raw, ours.Raw}, fp, oldNow, ""},
		{"a restored one", 7, [][]byte{a.Root.Raw}, fp, oldNow, ""},
		{"ours alone", 2, [][]byte{ours.Raw}, fp, oldNow, ""},
		{"not named", 0, [][]byte{a.Root.Raw}, "", oldNow, "CA"},
		{"not named, later", 1, [][]byte{a.Root.Raw, ours.Raw}, "", oldNow, "CA"},
		{"another is named", 1, [][]byte{a.Root.Raw}, certs.FingerprintOf(ours), oldNow, "CA"},
		{"ours at generation 0", 0, [][]byte{ours.Raw}, fp, oldNow, "no generation"},
		{"both at generation 0", 0, [][]byte{a.Root.Raw, ours.Raw}, fp, oldNow, "no generation"},
		{"ended", 0, [][]byte{a.Root.Raw}, fp, a.Root.NotAfter, "ended"},
		{"not yet", 0, [][]byte{a.Root.Raw}, fp, a.Root.NotBefore.Add(-time.Second), "clock"},
	} {
		_, err := certs.ParseBundle(c.gen, c.ders, names, c.at, c.adopted)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
}

func ourCA(t *testing.T, names []certs.Name) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.NewCA(certs.CATemplate{Number: 2, Names: names, NotBefore: oldNow.Add(-time.Hour), NotAfter: oldNow.AddDate(20, 0, 0)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Cert
}

// TestAdoptRefuses: what no Docker engine accepts, or what nobody could verify.
func TestAdoptRefuses(t *testing.T) {
	options := plain.Options{Now: oldNow}
	for _, c := range []struct {
		what  string
		o     plain.Options
		name  string
		at    time.Time
		noCAs bool
		says  string
	}{
		{"a common name alone", plain.Options{Now: oldNow, CommonNameOnly: true}, oldName, oldNow, false, "subjectAltName"},
		{"another name", options, "other.example.com", oldNow, false, "not for registry.example.com"},
		{"ended", options, oldName, oldNow.AddDate(1, 0, 0), false, "ended on 2026-09-09"},
		{"not yet", options, oldName, oldNow.AddDate(0, -1, 0), false, "clock"},
		{"for clients", plain.Options{Now: oldNow, Change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }}, oldName, oldNow, false, "does not verify"},
		{"without its issuer", options, oldName, oldNow, true, "is missing"},
	} {
		p, err := plain.Company(c.o, false, c.name)
		if err != nil {
			t.Fatal(err)
		}
		cas := parse(t, p.CA)
		if c.noCAs {
			cas = nil
		}
		_, err = certs.Adopt(parse(t, p.Cert), cas, oldName, c.at)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
	if _, err := certs.Adopt(nil, nil, oldName, oldNow); err == nil {
		t.Error("nothing is adopted")
	}
}

// TestIssued: evidence counts a root for the leaf that names it, and for no other.
func TestIssued(t *testing.T) {
	self, err := plain.SelfSigned(plain.Options{Now: oldNow}, oldName)
	if err != nil {
		t.Fatal(err)
	}
	company, err := plain.Company(plain.Options{Now: oldNow}, false, oldName)
	if err != nil {
		t.Fatal(err)
	}
	other, err := plain.Company(plain.Options{Now: oldNow}, false, oldName) // the same subject, another key
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what       string
		root, leaf *x509.Certificate
		want       bool
	}{
		{"itself", self.Leaf, self.Leaf, true},
		{"its CA", parse(t, company.CA)[0], company.Leaf, true},
		{"a leaf that did not sign itself", company.Leaf, company.Leaf, false},
		{"a namesake", parse(t, other.CA)[0], company.Leaf, false},
		{"a stranger", self.Leaf, company.Leaf, false},
	} {
		if got := certs.Issued(c.root, c.leaf); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
