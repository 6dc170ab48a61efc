package agent

import (
	"testing"

	"github.com/trustcast/trustcast/certs"
)

func TestDecide(t *testing.T) {
	have := func(gen uint64, trusts, disk certs.Fingerprint) Have {
		return Have{Generation: gen, Fingerprint: trusts, OnDisk: disk}
	}
	offer := func(gen uint64, print certs.Fingerprint) *Offer { return &Offer{Generation: gen, Fingerprint: print} }
	for _, c := range []struct {
		what    string
		have    Have
		offer   *Offer
		refused bool
		accept  bool
		install bool
	}{
		{"nothing yet, nothing offered", have(0, "", ""), nil, false, false, false},
		{"the first offer", have(0, "", ""), offer(1, "a"), false, true, true},
		{"the first offer, already on disk", have(0, "", "a"), offer(1, "a"), false, true, false},
		{"a newer one", have(1, "a", "a"), offer(2, "ab"), false, true, true},
		{"much newer", have(1, "a", "a"), offer(1700000000, "z"), false, true, true},
		{"the same again", have(2, "ab", "ab"), offer(2, "ab"), false, false, false},
		{"the same, disk drifted", have(2, "ab", "x"), offer(2, "ab"), false, false, true},
		{"the same, file gone", have(2, "ab", ""), offer(2, "ab"), false, false, true},
		{"an older one", have(2, "ab", "ab"), offer(1, "a"), true, false, false},
		{"an older one, disk drifted", have(2, "ab", "x"), offer(1, "a"), true, false, true},
		{"another under the same generation", have(2, "ab", "ab"), offer(2, "xy"), true, false, false},
		{"server away, all well", have(2, "ab", "ab"), nil, false, false, false},
		{"server away, file gone", have(2, "ab", ""), nil, false, false, true},
		{"the first offer of an adopted registry", have(0, "", ""), offer(0, "o"), false, true, true},
		{"the adopted one again", have(0, "o", "o"), offer(0, "o"), false, false, false},
		{"another at generation 0", have(0, "o", "o"), offer(0, "x"), true, false, false},
		{"after an adopted one", have(0, "o", "o"), offer(1, "on"), false, true, true},
		{"back to an adopted one", have(1, "on", "on"), offer(0, "o"), true, false, false},
		{"generation nought", have(2, "ab", "ab"), offer(0, ""), true, false, false},
	} {
		d := Decide(c.have, c.offer)
		if (d.Refused != "") != c.refused || d.Accept != c.accept || d.Install != c.install {
			t.Errorf("%s: %+v", c.what, d)
		}
	}
}
