package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/plain"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestAdoptedIsFixed: the certificate that the enrolment named is accepted, alone or
// beside a CA of the domain; a later message cannot name another.
func TestAdoptedIsFixed(t *testing.T) {
	const domain = "registry.example.com:5000"
	self := func() []byte {
		p, err := plain.SelfSigned(plain.Options{}, "registry.example.com")
		if err != nil {
			t.Fatal(err)
		}
		return p.Leaf.Raw
	}
	old, other := self(), self()
	cert, err := certs.ParseCertificate(old)
	if err != nil {
		t.Fatal(err)
	}
	adopted := certs.FingerprintOf(cert)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.NewCA(certs.CATemplate{Number: 2, Names: []certs.Name{{Host: "registry.example.com", Port: 5000}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what    string
		gen     uint64
		bundle  [][]byte
		adopted certs.Fingerprint
		refused bool
	}{
		{"day 0", 0, [][]byte{old}, adopted, false},
		{"staged", 1, [][]byte{old, ca.Cert.Raw}, adopted, false},
		{"retiring", 2, [][]byte{ca.Cert.Raw}, adopted, false},
		{"another", 1, [][]byte{other}, adopted, true},
		{"another beside it", 1, [][]byte{old, other}, adopted, true},
		{"another beside a CA", 1, [][]byte{other, ca.Cert.Raw}, adopted, true},
		{"an enrolment that named none", 0, [][]byte{old}, "", true},
		{"an enrolment that named none, later", 1, [][]byte{old, ca.Cert.Raw}, "", true},
	} {
		m := &pb.Wanted{Revision: 1, Generation: c.gen, Bundle: c.bundle, Names: []string{domain}}
		if _, err := vet(m, domain, c.adopted, time.Now()); (err != nil) != c.refused {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestAdoptedFormat: an identity that names an adopted certificate is refused by agents
// that do not know what that means, with what to do; any other is as it was.
func TestAdoptedFormat(t *testing.T) {
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for format, says := range map[int]string{stateFormat: "", adoptedFormat: "", runtimesFormat: "", runtimesFormat + 1: "newer agent"} {
		if err := s.write(identityFile, enrolment{Format: format, Name: "web-1"}); err != nil {
			t.Fatal(err)
		}
		var e enrolment
		_, err := s.read(identityFile, &e)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("format %d: %v", format, err)
		}
		data, err := os.ReadFile(filepath.Join(s.dir, identityFile))
		if err != nil || strings.Contains(string(data), "adopted") {
			t.Errorf("an identity that names none says so: %s %v", data, err)
		}
	}
}
