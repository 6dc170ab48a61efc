package authority

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestClaimsAreHeededSoon: hosts that claim to be further than the server have it look at
// the fleet at once, and after that once in a while, however many claim it and however
// often; but none waits for the next look by the clock.
func TestClaimsAreHeededSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.ack("web-1")
		r.ack("web-2")
		r.steps()
		claim := func(id string) {
			for i := range r.hosts {
				if r.hosts[i].ID == id {
					e := *r.hosts[i].Evidence
					e.Generation, e.Fingerprint = r.a.rec.Rotation.Generation+1, "another"
					r.hosts[i].Evidence = &e
				}
			}
			r.a.Heard(id)
		}
		looks := func() (took time.Duration) {
			began := time.Now()
			if !r.a.rest(t.Context()) {
				t.Fatal("the test has ended")
			}
			return time.Since(began)
		}
		claim("web-1")
		if took := looks(); took != 0 {
			t.Errorf("the first claim was looked into after %v", took)
		}
		claim("web-2")
		if took := looks(); took != heedEvery {
			t.Errorf("one right after it was looked into after %v, want %v", took, heedEvery)
		}
		// Without a claim, the clock: a minute's tick.
		r.a.Heard("nobody")
		if took := looks(); took <= heedEvery {
			t.Errorf("a look after %v without any reason", took)
		}
	})
}
