package authority

import (
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/server/records"
)

// change makes next the record: certificates and keys first, then the record,
// then the keys it forgets are destroyed. The caller holds mu; Run publishes and
// announces next.
func (a *Authority) change(next Rotation, now time.Time, by, detail string) error {
	rec := a.rec
	if next.LastCA != rec.Rotation.LastCA {
		var err error
		if rec, err = a.stage(rec, next, now); err != nil {
			return err
		}
	}
	event := eventOf(rec.Rotation, next)
	rec.Rotation = next
	rec.note(Entry{Time: now, Event: event, By: by, Detail: detail, WaitedFor: a.held})
	if err := a.write(rec, event); err != nil {
		return err
	}
	a.held = nil
	return nil
}

// write makes rec durable and current; then the keys that it forgets are destroyed,
// and those of records that could not be written: until another one is durable,
// nobody knows whether they are. The caller holds mu.
func (a *Authority) write(rec record, event string) error {
	rec.trim()
	wanted, err := rec.wanted()
	if err != nil {
		return err
	}
	rev, err := a.cfg.Records.Put(recordName, a.rev, rec)
	if err != nil {
		a.orphans = append(a.orphans, missing(rec.keys(), a.rec.keys())...)
		return err
	}
	forgotten := missing(append(a.rec.keys(), a.orphans...), rec.keys())
	a.rec, a.rev, a.orphans = rec, rev, nil
	a.wanted.Store(&wanted)
	r := rec.Rotation
	a.cfg.Log.Info("rotation", "phase", r.Phase, "event", event, "rotation", r.Number, "generation", r.Generation, "revision", r.Rev)
	a.doomed = append(a.doomed, forgotten...)
	return a.destroy()
}

// missing lists the keys that are not among others.
func missing(keys, others []records.KeyID) []records.KeyID {
	return slices.DeleteFunc(slices.Clone(keys), func(id records.KeyID) bool { return slices.Contains(others, id) })
}

// destroy destroys the keys that the record forgot; what fails is tried again at
// the next step, and at the next start.
func (a *Authority) destroy() error {
	for len(a.doomed) > 0 {
		if err := a.cfg.Keys.Destroy(a.doomed[0]); err != nil {
			return err
		}
		a.doomed = a.doomed[1:]
	}
	return nil
}

// stage adds the certificates of a new CA: itself, its leaves, and its predecessor
// signed by the active one, unless that one's key is stolen.
func (a *Authority) stage(rec record, next Rotation, now time.Time) (record, error) {
	ca, signer, leaves, err := a.maker.newCA(next.Other, now)
	if err != nil {
		return rec, err
	}
	rec.CAs = append(slices.Clone(rec.CAs), ca)
	rec.Leaves = append(slices.Clone(rec.Leaves), leaves...)
	if len(next.OtherChain) == 0 {
		return rec, nil
	}
	active, err := rec.signer(a.cfg.Keys, next.Active)
	if err != nil {
		return rec, err
	}
	link, err := active.SignNext(signer.Cert)
	if err != nil {
		return rec, err
	}
	rec.Links = append([]linkRecord{{Link: next.OtherChain[0], Cert: link.Raw, Ends: link.NotAfter}}, rec.Links...)
	return rec, nil
}

// eventOf names the step between two records for the history.
func eventOf(before, after Rotation) string {
	switch {
	case after.Restored && after.Generation > before.Generation:
		return "restore"
	case before.Restored && !after.Restored:
		return "open"
	case after.Number > before.Number && after.Compromised:
		return "compromise"
	case after.Number > before.Number && before.Phase != Idle:
		return "replace"
	case after.Number > before.Number:
		return "rotate"
	case before.Phase == Staged && after.Phase == Switched:
		return "switch"
	case before.Phase == Staged && after.Phase == Retiring, after.Rollback && !before.Rollback:
		return "rollback"
	case before.Phase == Switched && after.Phase == Retiring:
		return "retire"
	case before.Phase == Retiring && after.Phase == Idle:
		return "done"
	case len(after.Skipped) > len(before.Skipped):
		return "skip"
	case len(after.Chain)+len(after.OtherChain) < len(before.Chain)+len(before.OtherChain):
		return "prune"
	case len(after.Uncover) < len(before.Uncover):
		return "uncover"
	case after.Patience != before.Patience || !after.Deadline.Equal(before.Deadline):
		return "deadline"
	default:
		return "leaf"
	}
}

// wentOnWithout names the hosts that a step left behind or did not wait for.
func wentOnWithout(before, next Rotation, v View) string {
	var left, passed []string
	for _, h := range v.Hosts {
		switch {
		case !before.covers(h):
		case next.leaves(h.ID):
			left = append(left, h.Name)
		case next.Phase != Idle && !next.Complete(h, v) && !next.waited(h, v):
			passed = append(passed, h.Name)
		}
	}
	var parts []string
	if len(left) > 0 {
		parts = append(parts, "left behind, fail until they come back: "+someOf(left))
	}
	if len(passed) > 0 {
		parts = append(parts, "not waited for: "+someOf(passed))
	}
	return strings.Join(parts, "; ")
}

// cause says what made a step happen: evidence, the deadline after a theft, or a
// CA that is about to end.
func cause(before Rotation, v View) string {
	switch {
	case len(before.Waiting(v)) == 0:
		return "evidence"
	case before.pressing(v):
		return "end of the CA"
	default:
		return "deadline"
	}
}
