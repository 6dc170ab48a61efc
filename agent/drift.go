package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
)

const (
	// mostChanges of one path within changesWithin are mended at once; who changes it
	// more often does not stop by itself, and each repair is a report to the server.
	mostChanges   = 5
	changesWithin = 30 * time.Second
	// firstHold is how long a contested path is left alone at first; it doubles, up to
	// the tick.
	firstHold = time.Second
)

// repairs is what became of this host's files since the agent's start: what was mended,
// and over what something else fights. The membership's loop owns it.
type repairs struct {
	total     uint64
	path      string    // mended last
	at        time.Time // when, by the host's clock
	installed certs.Fingerprint
	// seen is what the last evidence found, by path; nil before the first.
	seen   map[string]look
	fights map[string]*fight
}

// look is one path as it was found.
type look struct {
	wrong bool   // it is ours, and not as we left it
	found string // to be compared with another look
}

// fight is how often something else changed one path.
type fight struct {
	recent []time.Time   // the last changes, mostChanges at most
	hold   time.Duration // 0: they are few
	until  time.Time     // not mended before
	ours   bool          // it was to be mended, the last time
}

// changed notes a change of a path that is dealt with now, ours if it is to be mended;
// tick bounds the hold. contested: this change was one too many.
func (r *repairs) changed(path string, ours bool, now time.Time, tick time.Duration) (contested bool) {
	if r.fights == nil {
		r.fights = map[string]*fight{}
	}
	f := r.fights[path]
	if f == nil {
		f = &fight{}
		r.fights[path] = f
	}
	f.recent = slices.DeleteFunc(f.recent, func(t time.Time) bool { return now.Sub(t) >= changesWithin })
	before := f.hold
	if f.hold > 0 || len(f.recent) == mostChanges {
		f.hold = max(min(2*f.hold, tick), firstHold)
		f.until = now.Add(f.hold)
		f.recent = f.recent[min(1, len(f.recent)):]
	}
	f.recent, f.ours = append(f.recent, now), ours
	return before == 0 && f.hold > 0
}

// held: the path is left alone for now.
func (r *repairs) held(path string, now time.Time) bool {
	f := r.fights[path]
	return f != nil && now.Before(f.until)
}

// contested is what something else changes again and again; "" for nothing.
func (r *repairs) contested() (path string) {
	for p, f := range r.fights {
		if f.hold > 0 && (path == "" || p < path) {
			path = p
		}
	}
	return path
}

// calm forgets fights that are over, and says how long until a contested path is worth
// a look; 0: none is. It goes by what was seen last.
func (r *repairs) calm(now time.Time) (next time.Duration) {
	for path, f := range r.fights {
		over, wrong := f.over(), r.seen[path].wrong
		if !wrong && !now.Before(over) {
			delete(r.fights, path)
			continue
		}
		due := over
		if wrong || !f.ours && now.Before(f.until) {
			due = f.until
		}
		if wait := due.Sub(now); f.hold > 0 && wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

// over is when a fight is, if nothing is wrong then. What is ours and was changed while
// it was held still is; what others have there may have changed to and fro.
func (f *fight) over() time.Time {
	last := f.recent[len(f.recent)-1]
	if !f.ours && f.until.After(last) {
		last = f.until
	}
	return last.Add(changesWithin)
}

// contestedText is what people are told.
func contestedText(path string) string {
	return fmt.Sprintf("something else changes %s again and again: find what writes there (a script, a configuration management, a DaemonSet) and stop it", path)
}

// look reads all that is ours.
func (a *membership) look() map[string]look {
	return a.lookAt(a.host.WithoutAside().Read(a.names, a.owned))
}

// lookAt judges what was read. What is aside is left to the slow check: its users could
// keep this process busy.
func (a *membership) lookAt(found []install.Found) map[string]look {
	all := make(map[string]look, len(found))
	for _, f := range found {
		if f.Aside {
			continue
		}
		wrong := len(a.bundle.Roots) > 0 && f.Fingerprint != a.bundle.Fingerprint()
		all[f.Path] = look{wrong: wrong, found: string(f.Fingerprint) + " " + f.Problem}
	}
	return all
}

// disturbed says whether what the kernel told of is worth a turn: something of ours is
// wrong, or is not what the last evidence found. What was this agent's own write,
// changed nothing, or happened to a path that is held, is not.
func (a *membership) disturbed() bool {
	disturbed, now := a.unplannedIn(a.host.WithoutAside()), time.Now()
	for path, l := range a.look() {
		before, known := a.repairs.seen[path]
		switch {
		case a.repairs.held(path, now):
		case l.wrong:
			disturbed = true // and mending it notes it
		case l.found != before.found:
			disturbed = true
			if known && !before.wrong {
				a.contest(path, false, now)
			}
		}
	}
	return disturbed
}

// drifted lists what was right, is not any more and shall be mended now; held: all of
// it is left alone for now. A bundle or a name that is new here is no drift.
func (a *membership) drifted() (paths []string, held bool) {
	if a.repairs.installed != a.bundle.Fingerprint() || a.unplanned() {
		return nil, false
	}
	now, due := time.Now(), false
	for path, l := range a.look() {
		if l.wrong {
			paths = append(paths, path)
			due = due || !a.repairs.held(path, now)
		}
	}
	slices.Sort(paths)
	if len(paths) > 0 && !due {
		return nil, true
	}
	for _, path := range paths {
		if !a.repairs.held(path, now) {
			a.contest(path, true, now)
		}
	}
	return paths, false
}

// mended notes that the accepted bundle is on disk, and what had drifted before.
func (a *membership) mended(drifted []string) {
	if len(drifted) == 0 {
		a.log.Info("installed", "generation", a.bundle.Generation, "fingerprint", a.bundle.Fingerprint().Short())
	}
	for _, path := range drifted {
		a.repairs.total++
		a.repairs.path, a.repairs.at = path, a.cfg.Now()
		if a.repairs.contested() == "" {
			a.log.Warn("mended: something else had changed it", "path", path, "repairs", a.repairs.total)
		}
	}
	a.repairs.seen = a.look() // the kernel tells of this write too
}

// contest notes that something else changed a path.
func (a *membership) contest(path string, ours bool, now time.Time) {
	if a.repairs.changed(path, ours, now, a.tick()) {
		a.log.Error(contestedText(path), "path", path)
	}
}
