package explore

import (
	"slices"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/server/authority"
)

// fault is a way in which the code could be wrong. The walk must find it.
type fault struct {
	name string
	// breaks is the promise that it must be caught by.
	breaks string
	plant  func(*code)
	scope  scope
}

var (
	plainScope   = scope{name: "plain", hosts: 1, budget: budget{rotations: 2, agentCrashes: 1}}
	pairScope    = scope{name: "pair", hosts: 2, whole: true, budget: budget{rotations: 1, absences: 1, crashes: 1, rollbacks: 1}}
	theftScope   = scope{name: "theft", hosts: 1, whole: true, budget: budget{compromises: 1, absences: 1, skips: 1}}
	goneScope    = scope{name: "removal", hosts: 2, whole: true, budget: budget{compromises: 1, removals: 1}}
	againScope   = scope{name: "restore", hosts: 1, whole: true, budget: budget{rotations: 1, backups: 1, restores: 1}}
	newScope     = scope{name: "new", hosts: 1, fresh: true, whole: true, budget: budget{backups: 1, restores: 1}}
	endScope     = scope{name: "end", hosts: 1, whole: true, budget: budget{rotations: 2, absences: 1, ends: 1}}
	joinScope    = scope{name: "join", hosts: 1, fresh: true, budget: budget{rotations: 1}}
	refuseScope  = scope{name: "refusal", hosts: 1, whole: true, budget: budget{rotations: 1, refusals: 1}}
	troubleScope = scope{name: "trouble", hosts: 1, whole: true, budget: budget{rotations: 1, agings: 1, drifts: 1, refusals: 1}}
	unheardScope = scope{name: "unheard", hosts: 1, whole: true, budget: budget{rotations: 1, crashes: 1, ends: 1}}
	takenScope   = scope{name: "taken over", hosts: 1, adopted: true, whole: true, budget: budget{rotations: 1, absences: 1}}
	orderScope   = scope{name: "order", hosts: 1, down: 2, budget: budget{rotations: 1, rollbacks: 1}}
)

var faults = []fault{
	{"who is gone at an adopted start is thought to be linked", "S1", advancing(func(r *authority.Rotation, _ *authority.View) {
		r.OtherReach = 0
	}, nil), takenScope},
	{"switch without waiting", "S2", phase(authority.Staged, nobody), plainScope},
	{"switch on vacuous evidence", "S2", evidence(func(r authority.Rotation, e *authority.Evidence) {
		e.Number, e.Generation, e.Bundle, e.Solo, e.Offline = r.Number, r.Generation, r.Bundle, r.Bundle, true
	}), plainScope},
	{"evidence without re-reading", "S2", func(c *code) { c.reads = func(h *host) roots { return h.trusted.bundle } }, plainScope},
	{"a crash makes hosts absent", "S2", func(c *code) {
		c.look = func(_ *world, v *authority.View) {
			for i := range v.Hosts {
				v.Hosts[i].Present = v.Hosts[i].Present && v.Hosts[i].Evidence != nil
			}
			v.Now = now.Add(patience)
		}
	}, pairScope},
	{"gone hosts are waited for not at all", "S2", advancing(func(r *authority.Rotation, v *authority.View) {
		r.Deadline = v.Now
	}, nil), pairScope},
	{"retire before confirmation", "S7", phase(authority.Switched, nobody), plainScope},
	{"retire although hosts refuse", "S7", evidence(func(_ authority.Rotation, e *authority.Evidence) {
		e.Live = outcomes[accepted]
	}), refuseScope},
	{"switch although hosts refuse", "S2", evidence(func(_ authority.Rotation, e *authority.Evidence) {
		e.Probe = outcomes[accepted]
	}), troubleScope},
	{"switch although nothing is in effect", "S2", evidence(func(r authority.Rotation, e *authority.Evidence) {
		e.Offline = e.Offline || r.Phase == authority.Staged
	}), troubleScope},
	{"retire although nothing is in effect", "S7", evidence(func(r authority.Rotation, e *authority.Evidence) {
		e.Offline = e.Offline || r.Phase == authority.Switched
	}), troubleScope},
	{"switch on old evidence", "S2", evidence(func(r authority.Rotation, e *authority.Evidence) {
		if r.Phase == authority.Staged {
			e.Age = 0
		}
	}), troubleScope},
	{"retire on old evidence", "S7", evidence(func(r authority.Rotation, e *authority.Evidence) {
		if r.Phase == authority.Switched {
			e.Age = 0
		}
	}), troubleScope},
	{"a hurry does not wait to hear hosts", "S1", phase(authority.Staged, func(_ *authority.Rotation, v *authority.View) {
		for i := range v.Hosts {
			if v.Hosts[i].Evidence == nil {
				v.Hosts[i].Evidence = &authority.Evidence{}
			}
		}
	}), unheardScope},
	{"the switch needs no confirmation", "S7", phase(authority.Switched, func(r *authority.Rotation, _ *authority.View) { r.SwitchedRev = 0 }), plainScope},
	{"retire before the edge has settled", "S5", func(c *code) {
		real := c.advance
		c.advance = func(r authority.Rotation, v authority.View) authority.Rotation {
			after := real(r, v)
			if after.Phase == authority.Switched && r.Phase == authority.Staged {
				v.Hosts, v.Serving = nil, authority.Serving{Active: after.Active, Chain: after.Chain}
				after = real(after, v)
			}
			return after
		}
	}, plainScope},
	{"serve before the record says so", "S6", func(c *code) { c.eager = true }, plainScope},
	{"forget the predecessor", "S1", advancing(nil, func(before authority.Rotation, after *authority.Rotation) {
		if before.Phase == authority.Switched {
			after.Chain = nil
		}
	}), pairScope},
	{"a theft leaves nobody behind", "S1", advancing(nil, func(before authority.Rotation, after *authority.Rotation) {
		if after.Phase == authority.Switched {
			after.Uncover = before.Uncover
		}
	}), theftScope},
	{"everybody is left behind", "S1", leaving(func(before authority.Rotation, after *authority.Rotation) bool {
		return before.Phase == authority.Staged && after.Phase == authority.Switched
	}), plainScope},
	{"everybody is left behind at the end", "S1", leaving(func(before authority.Rotation, after *authority.Rotation) bool {
		if before.Phase != authority.Switched {
			return false
		}
		after.Chain = nil
		return true
	}), plainScope},
	{"a theft leaves all behind", "S1", leaving(func(_ authority.Rotation, after *authority.Rotation) bool {
		return after.Phase == authority.Switched && after.Compromised
	}), theftScope},
	{"a restore leaves all behind", "S1", leaving(func(before authority.Rotation, after *authority.Rotation) bool {
		return before.Restored && !after.Restored
	}), againScope},
	{"an ended link leaves all behind", "S1", leaving(func(before authority.Rotation, after *authority.Rotation) bool {
		return len(after.Chain) < len(before.Chain)
	}), endScope},
	{"links are never dropped", "L1", advancing(func(_ *authority.Rotation, v *authority.View) { v.Ended = nil }, nil), endScope},
	{"who is left behind stays covered", "S1", func(c *code) { c.forgetful = true }, theftScope},
	{"cover without evidence", "S1", func(c *code) {
		c.cover = func(authority.Rotation, authority.Host, authority.View) bool { return true }
	}, joinScope},
	{"an ended link is dropped in silence", "S1", advancing(nil, func(before authority.Rotation, after *authority.Rotation) {
		if len(after.Chain) < len(before.Chain) {
			after.Uncover = nil
		}
	}), endScope},
	{"a restored server serves at once", "S1", func(c *code) {
		real := c.restore
		c.restore = func(r authority.Rotation, floor uint64) authority.Rotation {
			n := real(r, floor)
			n.Restored = false
			return n
		}
	}, againScope},
	{"a restored server waits for nobody", "S1: opened", func(c *code) {
		real := c.advance
		c.advance = func(r authority.Rotation, v authority.View) authority.Rotation {
			if next, err := r.ServeNow(v); err == nil {
				return next
			}
			return real(r, v)
		}
	}, againScope},
	{"a restored server waits for covered hosts only", "S1: opened", advancing(func(r *authority.Rotation, v *authority.View) {
		if r.Restored {
			v.Hosts = slices.DeleteFunc(v.Hosts, func(h authority.Host) bool { return !h.Covered })
		}
	}, nil), newScope},
	{"a restored record keeps its generation", "S4", func(c *code) {
		c.restore = func(r authority.Rotation, _ uint64) authority.Rotation { return authority.Rotation.Restore(r, 0) }
		c.advance = advanceWithoutOutrun
	}, againScope},
	{"the bundle changes under its generation", "S4", advancing(nil, func(before authority.Rotation, after *authority.Rotation) {
		after.Generation = before.Generation
	}), plainScope},
	{"an agent takes older bundles", "S4", func(c *code) {
		c.decide = func(have agent.Have, o *agent.Offer) agent.Decision {
			if o != nil {
				have.Generation = 0
			}
			return agent.Decide(have, o)
		}
	}, orderScope},
	{"an agent swallows what it should install", "L2", func(c *code) {
		c.decide = func(have agent.Have, o *agent.Offer) agent.Decision {
			d := agent.Decide(have, o)
			d.Install = d.Install && o != nil
			return d
		}
		c.waiting = func(authority.Rotation, authority.View) []authority.Wait { return nil }
	}, plainScope},
	{"a way back from retiring", "S7", func(c *code) {
		real := c.takeBack
		c.takeBack = func(r authority.Rotation, v authority.View) (authority.Rotation, error) {
			if r.Phase != authority.Retiring {
				return real(r, v)
			}
			r.Rev++
			r.Phase, r.Rollback = authority.Staged, true
			return r, nil
		}
	}, pairScope},
	{"removed hosts count", "S8", advancing(func(_ *authority.Rotation, v *authority.View) {
		for i := range v.Hosts {
			v.Hosts[i].Removed = false
		}
	}, nil), goneScope},
	{"the deadline never comes", "L", advancing(func(_ *authority.Rotation, v *authority.View) { v.Now = now }, nil), pairScope},
	{"status names nobody", "L2", func(c *code) {
		c.waiting = func(authority.Rotation, authority.View) []authority.Wait { return nil }
	}, refuseScope},
}

// TestFaultsAreFound: the walk is no formality. Each fault breaks its promise within
// the states that each `go test` explores, and the real code breaks none in as many.
// What the walk prints of it is what replay plays.
func TestFaultsAreFound(t *testing.T) {
	caught := 0
	for _, f := range faults {
		c := realCode()
		f.plant(&c)
		res := explore(f.scope, c, quickStates)
		if !strings.HasPrefix(res.broken, f.breaks) || res.broken == "" {
			t.Errorf("%s: found %q in %d states, want %s", f.name, res.broken, res.states, f.breaks)
			continue
		}
		caught++
		t.Logf("%-42s %6d states, depth %2d: %s", f.name, res.states, res.depth, res.broken)
		if real := explore(f.scope, realCode(), res.states); real.broken != "" {
			t.Errorf("the real code breaks a promise in scope %s too: %s", f.scope.name, real.broken)
		}
		script := f.scope.transcript(c, res.way, res.broken)
		s, err := scopeOf(script)
		if err != nil {
			t.Fatal(err)
		}
		if broken, err := replay(s, c, script); err != nil || !strings.HasSuffix(broken, res.broken) {
			t.Errorf("%s: %q, replayed %q (%v)\n%s", f.name, res.broken, broken, err, script)
		}
	}
	t.Logf("%d of %d faults caught", caught, len(faults))
}
