package authority

import (
	"fmt"
	"time"
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
	rec.note(now, event, by, detail)
	return a.write(rec, event)
}

// write makes rec durable and current. The caller holds mu.
func (a *Authority) write(rec record, event string) error {
	forgotten := rec.trim()
	wanted, err := rec.wanted()
	if err != nil {
		return err
	}
	rev, err := a.cfg.Records.Put(recordName, a.rev, rec)
	if err != nil {
		return err
	}
	a.rec, a.rev, a.wanted = rec, rev, wanted
	r := rec.Rotation
	a.cfg.Log.Info("rotation", "phase", r.Phase, "event", event, "rotation", r.Number, "generation", r.Generation, "revision", r.Rev)
	a.doomed = append(a.doomed, forgotten...)
	return a.destroy()
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

// stage adds the certificates of a new CA: itself, its predecessor signed by
// the active one, and its leaves.
func (a *Authority) stage(rec record, next Rotation, now time.Time) (record, error) {
	ca, signer, err := a.maker.newCA(next.Other, now)
	if err != nil {
		return rec, err
	}
	active, err := rec.signer(a.cfg.Keys, next.Active)
	if err != nil {
		return rec, err
	}
	link, err := active.SignNext(signer.Cert)
	if err != nil {
		return rec, err
	}
	leaves, err := a.maker.newLeaves(next.Other, signer, now)
	if err != nil {
		return rec, err
	}
	rec.CAs = append(append([]caRecord(nil), rec.CAs...), ca)
	rec.Links = append([]linkRecord{{Link: next.OtherChain[0], Cert: link.Raw}}, rec.Links...)
	rec.Leaves = append(append([]leafRecord(nil), rec.Leaves...), leaves...)
	return rec, nil
}

// eventOf names the step between two records for the history.
func eventOf(before, after Rotation) string {
	switch {
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
	case after.Patience != before.Patience || !after.Deadline.Equal(before.Deadline):
		return "deadline"
	default:
		return "leaf"
	}
}

// maxNamed bounds the hosts that one line of the history names.
const maxNamed = 20

// passedOver names the hosts that a step did not wait for.
func passedOver(next Rotation, v View) string {
	var names []string
	for _, h := range v.Hosts {
		if h.Covered && !h.Removed && next.Phase != Idle && !next.Complete(h, v) && !next.waited(h, v) {
			names = append(names, h.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	if more := len(names) - maxNamed; more > 0 {
		return fmt.Sprintf("not waited for: %v and %d more", names[:maxNamed], more)
	}
	return fmt.Sprintf("not waited for: %v", names)
}
