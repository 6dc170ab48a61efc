package sim

import (
	"path/filepath"
	"time"
)

// backUp keeps a copy of the server's state, and starts the server from it some
// time later.
func (o *organisation) backUp() {
	if o.cloning || o.holding {
		o.in(time.Hour, o.backUp)
		return
	}
	dir := filepath.Join(o.w.dir, "backup")
	o.w.server.end(o.w.t)
	o.w.backUp(dir)
	o.w.startServer()
	made, removed := time.Now(), o.figures.removed
	o.in(o.logDraw(time.Hour, 10*day), func() { o.restore(dir, made, removed) })
}

// restore loses the server's state since the backup. Whoever is away meanwhile may
// have a CA that the backup never knew, so that it pulls only after its first
// contact. A host that was removed since would be back until somebody removes it
// again, so there is no restore then.
func (o *organisation) restore(dir string, made time.Time, removed int) {
	switch {
	case removed != o.figures.removed:
		return
	case o.cloning || o.holding:
		o.in(time.Hour, func() { o.restore(dir, made, removed) })
		return
	}
	o.figures.restores++
	for name := range o.went {
		o.beyond[name] = true
	}
	o.w.server.end(o.w.t)
	o.w.restore(dir, made)
}
