package explore

import (
	"fmt"
	"slices"
	"testing"

	"github.com/trustcast/trustcast/server/authority"
)

// due says of each kind of events in which scopes it must have happened.
var due = map[string]func(s scope, b budget) bool{
	"step":           func(scope, budget) bool { return true },
	"cover":          func(s scope, b budget) bool { return s.fresh || b.enrolments > 0 },
	"uncover":        func(_ scope, b budget) bool { return b.compromises > 0 },
	"half-publish":   func(_ scope, b budget) bool { return b.nextRefused > 0 },
	"crash":          func(_ scope, b budget) bool { return b.crashes > 0 },
	"leaf":           func(_ scope, b budget) bool { return b.renewals > 0 },
	"rotate":         func(_ scope, b budget) bool { return b.rotations > 0 },
	"replace":        func(_ scope, b budget) bool { return b.rotations > 1 },
	"compromise":     func(_ scope, b budget) bool { return b.compromises > 0 },
	"rollback":       func(_ scope, b budget) bool { return b.rollbacks > 0 },
	"skip":           func(_ scope, b budget) bool { return b.skips > 0 },
	"servenow":       func(_ scope, b budget) bool { return b.hurries > 0 },
	"remove":         func(_ scope, b budget) bool { return b.removals > 0 },
	"keep":           func(_ scope, b budget) bool { return b.backups > 0 },
	"restore":        func(_ scope, b budget) bool { return b.restores > 0 },
	"copy":           func(_ scope, b budget) bool { return b.copies > 0 },
	"send":           func(scope, budget) bool { return true },
	"deliver":        func(s scope, _ budget) bool { return s.down > 0 },
	"overtake":       func(s scope, _ budget) bool { return s.down > 1 },
	"deliver-twice":  func(s scope, b budget) bool { return s.down > 0 && b.repeats > 0 },
	"lose":           func(s scope, b budget) bool { return s.down > 0 && b.losses > 0 },
	"report":         func(scope, budget) bool { return true },
	"hear":           func(s scope, _ budget) bool { return s.up > 0 },
	"hear-overtaken": func(s scope, _ budget) bool { return s.up > 1 },
	"hear-twice":     func(s scope, b budget) bool { return s.up > 0 && b.repeats > 0 },
	"lose-report":    func(s scope, b budget) bool { return s.up > 0 && b.losses > 0 },
	"install":        func(s scope, _ budget) bool { return !s.whole },
	"stop":           func(_ scope, b budget) bool { return b.agentCrashes > 0 },
	"hang-up":        func(_ scope, b budget) bool { return b.absences > 0 },
	"gone":           func(_ scope, b budget) bool { return b.absences+b.agentCrashes+b.crashes > 0 },
	"back":           func(_ scope, b budget) bool { return b.absences+b.agentCrashes+b.crashes > 0 },
	"enrol":          func(_ scope, b budget) bool { return b.enrolments > 0 },
	"drift":          func(_ scope, b budget) bool { return b.drifts > 0 },
	"break":          func(_ scope, b budget) bool { return b.drifts > 0 },
	"tidy":           func(_ scope, b budget) bool { return b.drifts > 0 },
	"refuse":         func(_ scope, b budget) bool { return b.refusals > 0 },
	"mend":           func(_ scope, b budget) bool { return b.refusals > 0 },
	"late":           func(scope, budget) bool { return true },
	"age":            func(_ scope, b budget) bool { return b.agings > 0 },
	"wear":           func(_ scope, b budget) bool { return b.ends > 0 },
	"end":            func(_ scope, b budget) bool { return b.ends > 0 },
}

// missing says in what a walk saw less than its scope promises.
func (s scope) missing(r result) []string {
	var less []string
	if r.states < s.least {
		less = append(less, fmt.Sprintf("it has %d states, want %d at the least", r.states, s.least))
	}
	if r.closed == s.cut {
		less = append(less, fmt.Sprintf("closed is %t", r.closed))
	}
	for _, k := range kinds {
		if due[k.line](s, s.budget) && !r.happened[k.line] {
			less = append(less, k.line+" never happened")
		}
	}
	return less
}

// TestNothingIsMissed is the control of missing: a walk that stops at once, or at
// which an event never happens, is no proof.
func TestNothingIsMissed(t *testing.T) {
	for _, k := range kinds {
		if due[k.line] == nil {
			t.Errorf("nobody says when %s must happen", k.line)
		}
	}
	s := joinScope
	s.least = 100
	if less := s.missing(explore(s, realCode(), quickStates)); len(less) > 0 {
		t.Errorf("a whole walk misses %v", less)
	}
	stopped := explore(s, realCode(), 1)
	if less := s.missing(stopped); len(less) < 3 {
		t.Errorf("a walk through %d states misses only %v", stopped.states, less)
	}
	deaf := realCode()
	deaf.cover = func(authority.Rotation, authority.Host, authority.View) bool { return false }
	if less := s.missing(explore(s, deaf, quickStates)); !slices.Contains(less, "cover never happened") {
		t.Errorf("a walk without covering misses only %v", less)
	}
}
