package server

import (
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
)

// What Init was told counts for the CAs that rotations make, unless a start says else.
func TestLivesOutliveTheFirstRotation(t *testing.T) {
	const day = 24 * time.Hour
	for given, want := range map[time.Duration]time.Duration{0: 100 * day, 50 * day: 50 * day} {
		dir := t.TempDir()
		if _, err := Init(t.Context(), InitConfig{DataDir: dir, Domain: "registry.test", CALife: 100 * day, LeafLife: 3 * day, ControlLife: 70 * day}); err != nil {
			t.Fatal(err)
		}
		n, err := open(t.Context(), Config{DataDir: dir, CALife: given}.withDefaults(), layout{dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.authority.Publish(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := n.authority.Rotate("a test", authority.Start{}); err != nil {
			t.Fatal(err)
		}
		roots := n.authority.Wanted().Bundle.Roots
		made := roots[len(roots)-1]
		if life := made.NotAfter.Sub(made.NotBefore) - certs.CABackdate; len(roots) != 2 || life != want {
			t.Errorf("told %s, the second CA of %d lives %s, want %s", given, len(roots), life, want)
		}
		for _, leaf := range n.authority.Wanted().Leaves {
			cert, err := certs.ParseCertificate(leaf.Cert)
			if err != nil || cert.NotAfter.Sub(cert.NotBefore)-certs.LeafBackdate != 3*day {
				t.Errorf("a leaf lives from %s to %s (%v)", cert.NotBefore, cert.NotAfter, err)
			}
		}
		if n.identityConfig(nil).ControlLife != 70*day {
			t.Error("the control CA has another life")
		}
	}
}
