package authority

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// lens translates fingerprints into the numbers of a record; made once a revision,
// since each report needs it.
type lens struct {
	rev           uint64 // of the record, in the store
	number        map[certs.Fingerprint]CAID
	active, other Life
	wanted        certs.Fingerprint
}

// focus makes the lens fit the record. The caller holds mu.
func (a *Authority) focus() {
	if a.lens.rev == a.rev && a.lens.number != nil {
		return
	}
	r := a.rec.Rotation
	l := lens{rev: a.rev, number: map[certs.Fingerprint]CAID{}, wanted: a.wanted.Load().Bundle.Fingerprint()}
	for _, root := range a.rec.CAs {
		cert, err := x509.ParseCertificate(root.Cert)
		if err != nil {
			continue // Open has parsed them all
		}
		l.number[certs.FingerprintOf(cert)] = root.ID
		life := a.rec.life(root, cert)
		switch root.ID {
		case r.Active:
			l.active = life
		case r.Other:
			l.other = life
		}
	}
	a.lens = l
}

// view translates what hosts reported, in fingerprints, into the rotation's
// numbers. The caller holds mu.
func (a *Authority) view(now time.Time) View {
	v := a.sight(now)
	v.ClockOff = a.cfg.ClockOff != nil && a.cfg.ClockOff()
	reports := a.cfg.Hosts()
	v.Hosts = make([]Host, len(reports))
	for i, h := range reports {
		v.Hosts[i] = a.host(h, now)
	}
	return v
}

// sight is a view of everything but the hosts, and what takes a look at them all.
// The caller holds mu.
func (a *Authority) sight(now time.Time) View {
	a.focus()
	v := View{Now: now, Tick: a.cfg.Tick, Serving: a.serving, Ready: a.ready, Active: a.lens.active, Other: a.lens.other}
	for _, l := range a.rec.Links {
		if !l.Ends.IsZero() && !now.Before(l.Ends) {
			v.Ended = append(v.Ended, l.Link)
		}
	}
	return v
}

// host is a report as the rotation sees it. The caller holds mu, and has a sight.
func (a *Authority) host(h HostReport, now time.Time) Host {
	host := Host{ID: h.ID, Name: h.Name, Removed: h.Removed, Covered: h.Covered, Present: h.Present, Connected: h.Connected, Generation: h.Generation}
	e := h.Evidence
	if e == nil {
		return host
	}
	host.Evidence = &Evidence{
		Revision: e.Revision, Number: e.Rotation, Generation: e.Generation,
		Offline: e.Offline, Probe: e.Probe, Live: e.Live,
		Age: now.Sub(h.Received), Problem: e.Problem,
	}
	if e.Fingerprint == a.lens.wanted {
		host.Evidence.Bundle = a.rec.Rotation.Bundle
	}
	for _, fp := range e.SoloRoots {
		if id, ok := a.lens.number[fp]; ok && !slices.Contains(host.Evidence.Solo, id) {
			host.Evidence.Solo = append(host.Evidence.Solo, id)
		}
	}
	return host
}
