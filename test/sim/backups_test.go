package sim

import (
	"path/filepath"
	"slices"
	"time"
)

// backUp makes a backup of the server, and starts the server from it some
// time later.
func (o *organisation) backUp() {
	if o.cloning || o.holding || o.backedUp {
		o.in(time.Hour, o.backUp)
		return
	}
	file := filepath.Join(o.w.dir, "backup.tar")
	o.w.server.end(o.w.t)
	o.w.backUp(file)
	o.w.startServer()
	made := time.Now()
	o.backedUp = true
	o.note("a backup is made")
	o.in(o.logDraw(time.Hour, 10*day), func() { o.restore(file, made) })
}

// restore loses the server's state since the backup. Whoever is away meanwhile may
// have a CA that the backup never knew, so that it pulls only after its first
// contact. Join tokens are revoked, so whoever joins comes first.
func (o *organisation) restore(file string, made time.Time) {
	if o.cloning || o.holding || o.joining() {
		o.in(time.Hour, func() { o.restore(file, made) })
		return
	}
	o.backedUp = false
	o.figures.restores++
	o.note("the backup of %s is put back", made)
	for name := range o.went {
		o.beyond[name] = true
	}
	o.w.server.end(o.w.t)
	o.w.restore(file)
}

// joining: a host joins at the moment.
func (o *organisation) joining() bool {
	return slices.ContainsFunc(o.returning, func(c comeback) bool { return c.slept < 0 })
}

// checkClosed: a restored server opens once the present hosts have what it is to
// serve, which takes no longer than a host may take to be heard.
func (o *organisation) checkClosed() {
	if !o.w.isClosed() || o.w.mayWait() {
		o.openBy = time.Now().Add(settling * o.w.pace.tick)
		return
	}
	if time.Now().After(o.openBy) {
		o.w.fail("the restored registry is still closed, and every present host is connected")
	}
}

// mayWait: the server may take somebody for present who is not connected, because it
// was started or a host was lost no longer than gone-after ago, or wait for one
// that is up again to be heard.
func (w *world) mayWait() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	heard := settling * w.pace.tick
	if time.Since(w.started) < w.pace.gone+heard {
		return true
	}
	for _, h := range w.hosts {
		if !h.up && time.Since(h.downSince) < w.pace.gone+heard || h.up && time.Since(h.upSince) < heard {
			return true
		}
	}
	return false
}
