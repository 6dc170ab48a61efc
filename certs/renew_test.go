package certs

import (
	"crypto/x509"
	"testing"
	"time"
)

func TestRenewAtSpreads(t *testing.T) {
	t.Parallel()
	made := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const life = 90 * 24 * time.Hour
	seen := map[time.Time]bool{}
	for i := range 100 {
		cert := &x509.Certificate{Raw: []byte{byte(i)}, NotAfter: made.Add(life)}
		at := RenewAt(cert, made, RenewAfter)
		if early, late := made.Add(life*2/3-time.Second), made.Add(life*72/100); at.Before(early) || at.After(late) {
			t.Errorf("certificate %d is renewed at %s, outside %s to %s", i, at, early, late)
		}
		if again := RenewAt(cert, made, RenewAfter); !again.Equal(at) {
			t.Errorf("certificate %d drew twice: %s and %s", i, at, again)
		}
		seen[at] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 certificates are renewed at %d times only", len(seen))
	}
}
