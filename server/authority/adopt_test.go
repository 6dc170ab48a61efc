package authority

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/plain"
)

const oldName = "registry.example.com"

// adopting begins with a pair of a plain registry.
func adopting(t *testing.T, p plain.Pair) func(Config, time.Time, string) (certs.Bundle, error) {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg Config, now time.Time, by string) (certs.Bundle, error) {
		served, err := certs.ParsePEM(p.Cert)
		if err != nil {
			return certs.Bundle{}, err
		}
		cas, err := certs.ParsePEM(p.CA)
		if err != nil {
			return certs.Bundle{}, err
		}
		adopted, err := certs.Adopt(served, cas, oldName, now)
		if err != nil {
			return certs.Bundle{}, err
		}
		return Adopt(cfg, adopted, pair.PrivateKey.(crypto.Signer), now, by)
	}
}

// oldHost verifies what is served with the ca.crt of the plain registry.
func (r *rig) oldHost(p plain.Pair) error {
	roots, err := certs.ParsePEM(p.CA)
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for _, der := range r.current[oldName].Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, c)
	}
	return certs.VerifyServed(chain, roots, oldName, time.Now())
}

// TestAdopted: the old pair is served byte for byte until the switch, a rotation takes
// its evidence from hosts as ever, and its key is destroyed at retire.
func TestAdopted(t *testing.T) {
	for what, make := range map[string]func() (plain.Pair, error){
		"signed by itself": func() (plain.Pair, error) { return plain.SelfSigned(plain.Options{}, oldName) },
		"a company's":      func() (plain.Pair, error) { return plain.Company(plain.Options{}, false, oldName) },
		"an intermediate":  func() (plain.Pair, error) { return plain.Company(plain.Options{}, true, oldName) },
	} {
		t.Run(what, func(t *testing.T) {
			p, err := make()
			if err != nil {
				t.Fatal(err)
			}
			r := newRigBy(t, adopting(t, p))
			served, err := certs.ParsePEM(p.Cert)
			if err != nil {
				t.Fatal(err)
			}
			same := func(when string) {
				t.Helper()
				got := r.current[oldName].Certificate
				for i, c := range served {
					if len(got) != len(served) || !bytes.Equal(got[i], c.Raw) {
						t.Fatalf("%s: the chain of %d certificates is not the old one of %d", when, len(got), len(served))
					}
				}
				if err := r.oldHost(p); err != nil {
					t.Fatalf("%s: a host as it was: %v", when, err)
				}
			}
			same("day 0")
			if w := r.a.Wanted(); w.Bundle.Generation != 0 || w.Adopted != w.Bundle.Fingerprint() {
				t.Fatalf("generation %d, adopted %q", w.Bundle.Generation, w.Adopted)
			}
			r.ack("web-1")
			if !r.hosts[0].Covered {
				t.Fatal("complete evidence at generation 0 covers nobody")
			}
			r.keysAre(t, "day 0", 1)
			if _, _, err := r.a.Rotate("test", Start{Patience: time.Nanosecond}); err != nil {
				t.Fatal(err)
			}
			r.steps()
			same("staged")
			r.keysAre(t, "staged", 3)
			if w := r.a.Wanted(); w.Bundle.Generation != 1 || w.Adopted == "" {
				t.Fatalf("staged: generation %d, adopted %q", w.Bundle.Generation, w.Adopted)
			}
			r.open() // the record is all that is needed
			same("staged, after a restart")
			r.ack("web-1")
			r.steps() // pulls that began before have had their nanosecond
			if r.phase() != Switched || len(r.current[oldName].Certificate) != 1 {
				t.Fatalf("%s, a chain of %d", r.phase(), len(r.current[oldName].Certificate))
			}
			if r.oldHost(p) == nil {
				t.Error("a host as it was verifies the new certificate: the test shows nothing")
			}
			r.keysAre(t, "switched", 3)
			r.ack("web-1")
			r.keysAre(t, "retiring", 2)
			if w := r.a.Wanted(); w.Bundle.Generation != 2 || w.Adopted != "" {
				t.Errorf("retiring: generation %d, adopted %q", w.Bundle.Generation, w.Adopted)
			}
			r.ack("web-1")
			if r.phase() != Idle {
				t.Errorf("%s at the end", r.phase())
			}
		})
	}
}

// keysAre counts key files, all of them named by the record.
func (r *rig) keysAre(t *testing.T, when string, count int) {
	t.Helper()
	have, err := r.keys.List()
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Compact(slices.Sorted(slices.Values(r.a.Keys())))
	slices.Sort(have)
	if !slices.Equal(have, want) || len(have) != count {
		t.Errorf("%s: key files %v, the record names %v, want %d", when, have, want, count)
	}
}

// TestAdoptedBack: after the switch the old pair can serve again.
func TestAdoptedBack(t *testing.T) {
	p, err := plain.SelfSigned(plain.Options{}, oldName)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigBy(t, adopting(t, p))
	r.ack("web-1")
	if _, _, err := r.a.Rotate("test", Start{Patience: time.Hour}); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	state, err := r.a.State()
	if err != nil || r.phase() != Staged || len(state.Waiting) != 1 || state.Waiting[0].Host != "pulls" {
		t.Fatalf("%s, waiting for %v (%v): pulls that began with the old certificate have no time", r.phase(), state.Waiting, err)
	}
	if err := r.a.Wait("test", time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	r.ack("web-1")
	if r.phase() != Switched {
		t.Fatal(r.phase())
	}
	if err := r.a.Rollback("test"); err != nil {
		t.Fatal(err)
	}
	r.steps()
	if err := r.oldHost(p); err != nil {
		t.Errorf("taken back, and a host as it was fails: %v", err)
	}
	r.ack("web-1")
	r.keysAre(t, "taken back", 1)
	if w := r.a.Wanted(); r.phase() != Idle || w.Bundle.Generation != 2 || w.Adopted == "" {
		t.Errorf("%s at generation %d, adopted %q", r.phase(), w.Bundle.Generation, w.Adopted)
	}
}

// TestAdoptedEnds: nothing renews an adopted leaf; at two thirds of what it has left
// the rotation begins by itself, whatever its CA's life is.
func TestAdoptedEnds(t *testing.T) {
	const left = 90 * 24 * time.Hour
	p, err := plain.Company(plain.Options{Life: left}, false, oldName)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigBy(t, adopting(t, p))
	rev := r.a.Wanted().Revision
	began := time.Now()
	if _, err := r.a.step(began.Add(left*2/3 - time.Hour)); err != nil || r.phase() != Idle || r.a.Wanted().Revision != rev {
		t.Fatalf("%s, revision %d (%v): too early", r.phase(), r.a.Wanted().Revision, err)
	}
	if _, err := r.a.step(began.Add(left * 3 / 4)); err != nil || r.phase() != Staged {
		t.Fatalf("%s (%v) at three quarters", r.phase(), err)
	}
	state, err := r.a.State()
	if err != nil {
		t.Fatal(err)
	}
	if life := state.IssuerLife; !state.Adopted || !life.Until.Equal(p.Leaf.NotAfter) || life.From.Sub(began).Abs() > time.Minute {
		t.Errorf("the adopted certificate lives %s to %s, its leaf ends %s", life.From, life.Until, p.Leaf.NotAfter)
	}
}

// TestAdoptTwice: what is there is not replaced.
func TestAdoptTwice(t *testing.T) {
	p, err := plain.SelfSigned(plain.Options{}, oldName)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	if _, err := adopting(t, p)(r.cfg, time.Now(), "test"); err == nil {
		t.Error("a CA was replaced by an adopted one")
	}
	var rec record
	if _, err := r.cfg.Records.Get(recordName, &rec); err != nil || rec.Rotation.Adopted != 0 {
		t.Errorf("%v, adopted %d", err, rec.Rotation.Adopted)
	}
}
