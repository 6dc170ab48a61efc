package authority

import (
	"context"
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"
)

// TestShortLeaves: leaves that live shorter than a tick are renewed before they
// end, each time.
func TestShortLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served *tls.Certificate
		renewals := 0
		r := newRig(t, func(cfg *Config) {
			cfg.LeafLife, cfg.Tick = 3*time.Second, time.Minute
			cfg.Publish = func(current, _ map[string]*tls.Certificate) error {
				if served != nil && time.Now().After(served.Leaf.NotAfter) {
					t.Errorf("a leaf was served for %s after its end", time.Since(served.Leaf.NotAfter))
				}
				served = current["registry.example.com"]
				renewals++
				return nil
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := r.a.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if renewals < 250 {
			t.Errorf("%d renewals in ten minutes, want one every two seconds or so", renewals)
		}
	})
}
