package authority

import (
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

// TestEachPartOfEvidenceCounts: a host that is ready in all but one part is not
// ready; the lines of TestTranscripts spoil several at once.
func TestEachPartOfEvidenceCounts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	staged := Rotation{
		Rev: 9, Generation: 4, Number: 2, Phase: Staged, Active: 2, Other: 3, LastCA: 3, Bundle: []CAID{2, 3},
		Chain: []Link{{CA: 2, By: 1}}, OtherChain: []Link{{CA: 3, By: 2}, {CA: 2, By: 1}},
	}
	switched := staged.swap()
	switched.Phase = Switched
	for _, c := range []struct {
		what  string
		rec   Rotation
		spoil func(*Evidence)
		lack  string // "" when it is ready
	}{
		{"all of it, staged", staged, func(*Evidence) {}, ""},
		{"all of it, switched", switched, func(*Evidence) {}, ""},
		{"of another rotation", staged, func(e *Evidence) { e.Number-- }, "of rotation 1"},
		{"of another generation", staged, func(e *Evidence) { e.Generation-- }, "generation 3"},
		{"another bundle", staged, func(e *Evidence) { e.Bundle = []CAID{2} }, "on disk"},
		{"no bundle of ours", staged, func(e *Evidence) { e.Bundle = nil }, "on disk"},
		{"two ticks old", staged, func(e *Evidence) { e.Age = 2 * playTick }, "its last report"},
		{"not in effect", staged, func(e *Evidence) { e.Offline = false }, "not in effect"},
		{"the next CA does not verify alone", staged, func(e *Evidence) { e.Solo = []CAID{2} }, "CA 3"},
		{"the active CA does not verify alone", staged, func(e *Evidence) { e.Solo = []CAID{3} }, "CA 2"},
		{"the future certificate is not tried", staged, func(e *Evidence) { e.Probe = certs.NotTried }, "has not tried"},
		{"the future certificate is refused", staged, func(e *Evidence) { e.Probe = certs.Refused }, "refuses"},
		{"the registry is unreachable there", staged, func(e *Evidence) { e.Probe, e.Live = certs.Unreachable, certs.Unreachable }, ""},
		{"from before the switch", switched, func(e *Evidence) { e.Revision = staged.Rev }, "has not confirmed"},
		{"the served certificate is refused", switched, func(e *Evidence) { e.Live = certs.Refused }, "refuses"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := c.rec
			e := &Evidence{
				Revision: r.Rev, Number: r.Number, Generation: r.Generation, Bundle: r.Bundle, Solo: []CAID{2, 3},
				Offline: true, Probe: certs.OK, Live: certs.OK,
			}
			c.spoil(e)
			v := View{Now: now, Tick: playTick, Hosts: []Host{{ID: "a", Name: "a", Covered: true, Present: true, Connected: true, Evidence: e}}}
			v.Serving = Serving{Active: r.Active, Chain: r.Chain}
			if r.Phase == Staged {
				v.Serving.Next = r.Other
			}
			waits := r.Waiting(v)
			if next := r.Advance(v); (next.Phase != r.Phase) != (c.lack == "") || (len(waits) == 0) != (c.lack == "") {
				t.Fatalf("%s -> %s, waiting for %v", r.Phase, next.Phase, waits)
			}
			if c.lack != "" && !strings.Contains(waits[0].Reason, c.lack) {
				t.Errorf("it is said of it %q, want %q", waits[0].Reason, c.lack)
			}
		})
	}
}

// TestNothingWithoutARecord: while a record cannot be written nothing is served,
// announced or destroyed on the strength of it; once it can, the step happens.
func TestNothingWithoutARecord(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	events := []struct {
		what   string
		happen func() error
	}{
		{"rotate", func() error { _, _, err := r.a.Rotate("test", Start{}); return err }},
		{"roll back", func() error { return r.a.Rollback("test") }},
		{"the step after it", func() error { _, err := r.a.step(time.Now()); return err }},
	}
	for _, e := range events {
		if err := r.a.Publish(); err != nil { // what is recorded already
			t.Fatal(err)
		}
		before, keys := r.a.Wanted(), r.a.Keys()
		r.saw = nil
		mine := r.a.rev
		r.a.rev-- // somebody else wrote: each compare-and-swap fails
		if err := e.happen(); err == nil {
			t.Fatalf("%s: no error although nothing was recorded", e.what)
		}
		if got := r.a.Wanted(); got.Revision != before.Revision || got.Bundle.Fingerprint() != before.Bundle.Fingerprint() {
			t.Errorf("%s: hosts are told revision %d, recorded is %d", e.what, got.Revision, before.Revision)
		}
		if len(r.saw) != 0 {
			t.Errorf("%s: %v although nothing was recorded", e.what, r.saw)
		}
		r.exist(e.what, keys)
		r.a.rev = mine
		if err := e.happen(); err != nil || r.a.Wanted().Revision == before.Revision {
			t.Fatalf("%s does not happen when it can be recorded: %v", e.what, err)
		}
	}
}

// exist: all of these keys are there.
func (r *rig) exist(when string, keys []records.KeyID) {
	r.t.Helper()
	for _, id := range keys {
		if _, err := r.keys.Load(id); err != nil {
			r.t.Errorf("%s: %v", when, err)
		}
	}
}
