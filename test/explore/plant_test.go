package explore

import (
	"slices"

	"github.com/trustcast/trustcast/server/authority"
)

// advancing wraps the automatic steps: it may change what they see, and what they
// answer.
func advancing(see func(*authority.Rotation, *authority.View), answer func(before authority.Rotation, after *authority.Rotation)) func(*code) {
	return func(c *code) {
		real := c.advance
		c.advance = func(r authority.Rotation, v authority.View) authority.Rotation {
			before := r
			if see != nil {
				v.Hosts = slices.Clone(v.Hosts)
				see(&r, &v)
			}
			after := real(r, v)
			if after.Rev == before.Rev {
				return before
			}
			if answer != nil {
				answer(before, &after)
			}
			return after
		}
	}
}

// evidence changes what hosts are seen to have shown.
func evidence(change func(authority.Rotation, *authority.Evidence)) func(*code) {
	return advancing(func(r *authority.Rotation, v *authority.View) {
		for i := range v.Hosts {
			if v.Hosts[i].Evidence != nil {
				e := *v.Hosts[i].Evidence
				change(*r, &e)
				v.Hosts[i].Evidence = &e
			}
		}
	}, nil)
}

func phase(p authority.Phase, see func(*authority.Rotation, *authority.View)) func(*code) {
	return advancing(func(r *authority.Rotation, v *authority.View) {
		if r.Phase == p {
			see(r, v)
		}
	}, nil)
}

// leaving leaves everybody behind at the steps that when chooses.
func leaving(when func(before authority.Rotation, after *authority.Rotation) bool) func(*code) {
	return func(c *code) {
		real := c.advance
		c.advance = func(r authority.Rotation, v authority.View) authority.Rotation {
			after := real(r, v)
			if after.Rev == r.Rev || !when(r, &after) {
				return after
			}
			after.Uncover = nil
			for _, h := range v.Hosts {
				after.Uncover = append(after.Uncover, h.ID)
			}
			return after
		}
	}
}

func nobody(_ *authority.Rotation, v *authority.View) { v.Hosts = nil }

// advanceWithoutOutrun trusts the generation that a restored record has.
func advanceWithoutOutrun(r authority.Rotation, v authority.View) authority.Rotation {
	next := r.Advance(v)
	if r.Restored && next.Restored && next.Generation != r.Generation {
		return r
	}
	return next
}
