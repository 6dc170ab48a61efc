package authority

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/server/records"
)

// Restore begins a life after a backup: floor, the Unix time in seconds, is far
// above what counting reaches, so that hosts which went further than the backup
// take the restored bundle for the newer one. All evidence is void, and nothing is
// served until Advance finds that every present host has the active CA itself.
func (r Rotation) Restore(floor uint64) Rotation {
	n := r
	n.Rev = max(r.Rev+1, floor)
	n.Generation = max(r.Generation+1, floor)
	n.Number++
	n.Restored = true
	n.SwitchedRev = n.Rev
	// Hosts may have gone on to CAs that this record never knew.
	n.Reach = n.Generation
	if n.Other != 0 {
		n.OtherReach = n.Generation
	}
	return n
}

// ServeNow opens the edge after a restore without waiting: hosts that do not have
// the active CA fail until they come back.
func (r Rotation) ServeNow(v View) (Rotation, error) {
	if !r.Restored {
		return r, fmt.Errorf("%w: the registry serves already", ErrNotNow)
	}
	return r.open(v), nil
}

// open ends the wait after a restore. Who has not shown the active CA is not
// covered until it does.
func (r Rotation) open(v View) Rotation {
	n := r.change()
	n.Restored = false
	n.Skipped = nil
	return n.leave(r.ids(v, func(h Host) bool {
		lack, _ := r.lacks(h, v, r.Phase)
		return lack != ""
	}))
}

// outrun raises the generation of a restored record above what its hosts have. A
// host with another bundle under the same one has been further too.
func (r Rotation) outrun(v View) Rotation {
	n := r.change()
	for _, h := range v.Hosts {
		ours := n.Generation
		if h.Evidence != nil && h.Evidence.Bundle == nil {
			ours--
		}
		if r.Restored && !slices.Contains(r.Skipped, h.ID) && claims(h, v, ours) {
			n.Generation = h.Evidence.Generation + 1
		}
	}
	if n.Generation == r.Generation {
		return r
	}
	n.Reach = n.Generation
	if n.Other != 0 {
		n.OtherReach = n.Generation
	}
	return n
}

// implausible is how far a generation may lie above the Unix time in seconds,
// which is the highest that a restore gives: further, and a host makes it up.
const implausible = 1 << 20

// claims: a host reports a generation above ours, and one that can be.
func claims(h Host, v View, ours uint64) bool {
	e := h.Evidence
	return !h.Removed && e != nil && e.Generation > ours && e.Age < 2*v.Tick &&
		e.Generation <= uint64(max(v.Now.Unix(), 0))+implausible //nolint:gosec // not negative
}

// ahead names the hosts that report a generation above ours, and counts those
// that report at all; who is passed over says nothing here.
func (r Rotation) ahead(v View) (names []string, reporting int) {
	for _, h := range v.Hosts {
		if h.Removed || h.Evidence == nil || h.Evidence.Age >= 2*v.Tick || slices.Contains(r.Skipped, h.ID) {
			continue
		}
		reporting++
		if claims(h, v, r.Generation) {
			names = append(names, h.Name)
		}
	}
	return names, reporting
}

// superseded: another server has led this fleet further. One stolen identity must
// not stop a rotation, so at least half of those who report must say it; a single
// honest host holds the switch anyway, because it refuses the older generation.
func (r Rotation) superseded(v View) bool {
	names, reporting := r.ahead(v)
	return !r.Restored && len(names) > 0 && 2*len(names) >= reporting
}

// Frozen says why nothing happens to the record any more, and what to do; "" when
// it is not frozen.
func (r Rotation) Frozen(v View) string {
	switch {
	case r.superseded(v):
		names, _ := r.ahead(v)
		return fmt.Sprintf("there are newer generations than %d on %s: another server, or a later state of this one, leads this fleet; stop this server, or if it is the right one restore it from its newest backup; a host that lies is shut out by `trustcast host rm NAME`", r.Generation, someOf(names))
	case r.Restored:
		return "this server was restored from a backup and serves nobody until every present host has the restored CA; `trustcast status` names who is waited for, `trustcast ca serve-now` does not wait for them"
	}
	return ""
}

// maxNamed bounds the hosts that one sentence names.
const maxNamed = 20

// someOf names hosts in a sentence.
func someOf(names []string) string {
	if more := len(names) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), more)
	}
	return strings.Join(names, ", ")
}

// Restore makes the record of a state directory that came from a backup one that
// may lead the fleet again; see Rotation.Restore. No server runs on it meanwhile.
func Restore(store *records.Store, now time.Time, by string) error {
	var rec record
	rev, err := store.Get(recordName, &rec)
	if err != nil {
		return fmt.Errorf("restore registry CA: %w", err)
	}
	rec.Rotation = rec.Rotation.Restore(floorAt(now))
	rec.note(Entry{Time: now, Event: "restore", By: by})
	if _, err := store.Put(recordName, rev, rec); err != nil {
		return fmt.Errorf("restore registry CA: %w", err)
	}
	return nil
}

// floorAt is the generation that a restore at a time begins with.
func floorAt(now time.Time) uint64 { return uint64(max(now.Unix(), 0)) } //nolint:gosec // not negative
