package explore

import (
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
)

// eye is how the rotation sees a world. It is used again and again: a view is
// valid until the next.
type eye struct {
	hosts    [maxHosts]authority.Host
	evidence [maxHosts]authority.Evidence
	solo     [maxHosts][2]authority.CAID
	ended    [16]authority.Link
}

var outcomes = [...]certs.Outcome{notTried: certs.NotTried, accepted: certs.OK, refused: certs.Refused, other: certs.Unreachable}

func (y *eye) view(w *world) authority.View {
	v := authority.View{Now: now, Tick: tick, Serving: w.edge.Serving}
	if w.late {
		v.Now = now.Add(patience)
	}
	v.Ready = v.Now.Add(-2 * patience) // pulls that linger are over: what may happen, happens
	v.Active, v.Other = w.life(w.rec.Active, v.Now), w.life(w.rec.Other, v.Now)
	ended := y.ended[:0]
	for _, chain := range [2][]authority.Link{w.rec.Chain, w.rec.OtherChain} {
		for _, l := range chain {
			if w.over(l) {
				ended = append(ended, l)
			}
		}
	}
	v.Ended = ended
	n := 0
	for i := range w.hosts {
		if h := &w.hosts[i]; h.exists() {
			y.host(n, h, w.rec.Bundle)
			n++
		}
	}
	v.Hosts = y.hosts[:n]
	return v
}

// host translates what the server knows of a host, as the driver does.
func (y *eye) host(n int, h *host, bundle []authority.CAID) {
	seen := &y.hosts[n]
	*seen = authority.Host{
		ID: h.name, Name: h.name, Removed: h.removed, Covered: h.covered, Present: h.present,
		Connected: h.stream, Generation: uint64(h.known),
	}
	if h.evidence.seq == 0 {
		return
	}
	r, e := &h.evidence, &y.evidence[n]
	*e = authority.Evidence{
		Revision: uint64(r.rev), Number: uint64(r.number), Generation: uint64(r.gen),
		Offline: r.offline, Probe: outcomes[r.probe], Live: outcomes[r.live],
	}
	if h.aged {
		e.Age = 2 * tick
	}
	if r.disk == rootsOf(bundle) {
		e.Bundle = bundle
	}
	solo := y.solo[n][:0]
	for _, c := range [2]ca{r.solo.a, r.solo.b} {
		if c != 0 && c < foreign {
			solo = append(solo, authority.CAID(c))
		}
	}
	e.Solo = solo
	seen.Evidence = e
}

// life of a CA: half of it is over, but for one that is near its end.
func (w *world) life(id authority.CAID, at time.Time) authority.Life {
	const day = 24 * time.Hour
	if id == 0 {
		return authority.Life{}
	}
	left := caLife / 2
	c := ca(id) //nolint:gosec // fewer than 64
	switch {
	case w.spent(c):
		left = -time.Hour
	case c != w.pressed:
	case w.worn == 1:
		left = 6 * day
	case w.worn == 2:
		left = day / 2
	}
	return authority.Life{From: at.Add(left - caLife), Until: at.Add(left)}
}
