package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// forever is longer than any tick.
const forever = time.Duration(math.MaxInt64)

// renewAt is when a certificate made at a time is replaced.
func renewAt(cert *x509.Certificate, made time.Time) time.Time {
	return certs.RenewAt(cert, made, certs.RenewAfter)
}

// renew replaces what is old enough: leaves in any phase, the CA when idle and
// the window is open.
func (a *Authority) renew(v View) (again bool, err error) {
	if v.ClockOff {
		return false, nil
	}
	for _, id := range []CAID{a.rec.Rotation.Active, a.rec.Rotation.Other} {
		due, err := a.leavesDue(id, v.Now)
		if err != nil {
			return false, err
		}
		if due || v.witnessed() && a.leavesAhead(id, v.Now) {
			return true, a.renewLeaves(id, v.Now)
		}
	}
	if a.rec.Rotation.Phase != Idle || a.rec.Rotation.Restored || !a.cfg.Window.Open(v.Now) {
		return false, nil
	}
	cert, due, err := a.rotationDue()
	if err != nil || v.Now.Before(due) {
		return false, err
	}
	next, err := a.rec.Rotation.Rotate(v, a.cfg.Deadline)
	if err != nil {
		return false, err
	}
	return true, a.change(next, v.Now, "age", cert.Subject.CommonName)
}

// rotationDue is when the active CA is old enough to be replaced.
func (a *Authority) rotationDue() (cert *x509.Certificate, due time.Time, err error) {
	ca, err := a.rec.ca(a.rec.Rotation.Active)
	if err != nil {
		return nil, time.Time{}, err
	}
	if cert, err = x509.ParseCertificate(ca.Cert); err != nil {
		return nil, time.Time{}, err
	}
	if ca.Adopted.IsZero() {
		return cert, renewAt(cert, cert.NotBefore.Add(certs.CABackdate)), nil
	}
	return cert, renewAt(a.rec.endsFirst(ca.ID, cert), ca.Adopted), nil
}

// leavesDue: a leaf of the CA is old enough, and a new one would live longer by
// a day at least (or a tenth of its life, for short lives).
func (a *Authority) leavesDue(id CAID, now time.Time) (bool, error) {
	for _, l := range a.rec.Leaves {
		if l.CA != id || id == a.rec.Rotation.Adopted { // nobody here can sign another
			continue
		}
		leaf, err := x509.ParseCertificate(l.Cert)
		if err != nil {
			return false, fmt.Errorf("leaf for %s: %w", l.Host, err)
		}
		ca, err := a.rec.cert(id)
		if err != nil {
			return false, err
		}
		end := now.Add(a.cfg.LeafLife)
		if end.After(ca.NotAfter) {
			end = ca.NotAfter
		}
		gain := min(24*time.Hour, a.cfg.LeafLife/10)
		if !now.Before(renewAt(leaf, l.Made)) && end.Sub(leaf.NotAfter) >= gain {
			return true, nil
		}
	}
	return false, nil
}

// leavesAhead: a leaf of the CA is not valid yet. It was made while the clock was
// ahead, and nobody accepts it.
func (a *Authority) leavesAhead(id CAID, now time.Time) bool {
	return slices.ContainsFunc(a.rec.Leaves, func(l leafRecord) bool {
		leaf, err := x509.ParseCertificate(l.Cert)
		return err == nil && l.CA == id && id != a.rec.Rotation.Adopted && now.Before(leaf.NotBefore)
	})
}

// untilRenewal is how long no leaf comes due; forever when none will. A leaf that
// is due and stays, since a new one would gain too little, is looked at with the
// rest. The caller holds mu.
func (a *Authority) untilRenewal(now time.Time) time.Duration {
	wait := forever
	for _, l := range a.rec.Leaves {
		leaf, err := x509.ParseCertificate(l.Cert)
		if err != nil {
			continue // leavesDue says it
		}
		if due := renewAt(leaf, l.Made); due.After(now) {
			wait = min(wait, due.Sub(now))
		}
	}
	return wait
}

// renewLeaves replaces all leaves of a CA; bundle and generation stay. The old
// keys are destroyed once the record forgot them; connections in flight hold
// theirs in memory.
func (a *Authority) renewLeaves(id CAID, now time.Time) error {
	signer, err := a.rec.signer(a.cfg.Keys, id)
	if err != nil {
		return err
	}
	leaves, err := a.maker.newLeaves(id, signer, now)
	if err != nil {
		return err
	}
	rec := a.rec
	old := rec.Leaves
	rec.Leaves = slices.DeleteFunc(slices.Clone(old), func(l leafRecord) bool { return l.CA == id })
	rec.Leaves = append(rec.Leaves, leaves...)
	rec.Rotation = rec.Rotation.RenewLeaf()
	rec.note(Entry{Time: now, Event: "leaf", By: "age", Detail: signer.Cert.Subject.CommonName})
	return a.write(rec, "leaf")
}

// Window is a daily span of time, in UTC. The zero value is always open.
type Window struct{ from, to time.Duration }

// ParseWindow reads "HH:MM-HH:MM"; "" is always.
func ParseWindow(s string) (Window, error) {
	if s == "" {
		return Window{}, nil
	}
	bad := fmt.Errorf("window %q: give HH:MM-HH:MM in UTC, for example 22:00-04:00", s)
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		return Window{}, bad
	}
	from, err1 := time.Parse("15:04", strings.TrimSpace(a))
	to, err2 := time.Parse("15:04", strings.TrimSpace(b))
	if err := errors.Join(err1, err2); err != nil {
		return Window{}, bad
	}
	return Window{from: sinceMidnight(from), to: sinceMidnight(to)}, nil
}

// Open says whether t lies in the window.
func (w Window) Open(t time.Time) bool {
	at := sinceMidnight(t.UTC())
	switch {
	case w.from == w.to:
		return true
	case w.from < w.to:
		return at >= w.from && at < w.to
	default: // over midnight
		return at >= w.from || at < w.to
	}
}

func sinceMidnight(t time.Time) time.Duration {
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
}
