package explore

// restart runs the server from the backup: as a restore would, or, astray, as it
// is.
func (m *machine) restart(w *world, astray bool) {
	b := w.backup
	m.disown(w, ca(b.rec.LastCA)) //nolint:gosec // fewer than 64
	w.rec, w.version, w.late = b.rec, b.version, false
	if !astray {
		w.rec = m.restore(b.rec, uint64(now.Unix())) //nolint:gosec // after 1970
	}
	w.astray = astray
	w.crash()
	for i := range w.hosts {
		if h := &w.hosts[i]; h.exists() {
			h.covered = h.kept.covered && h.kept.exists
			h.removed = h.kept.removed && h.kept.exists
			h.known = h.kept.known
		}
	}
}

// disown renames the CAs that a restored record does not know, as it will give
// their numbers again.
func (m *machine) disown(w *world, last ca) {
	rename := func(c *ca) {
		if *c > last && *c < foreign {
			*c += foreign
		}
	}
	for i := range w.hosts {
		h := &w.hosts[i]
		all := []*ca{&h.trusted.bundle.a, &h.trusted.bundle.b, &h.trusted.active, &h.trusted.next, &h.disk.a, &h.disk.b}
		for j := range h.down {
			o := &h.down[j]
			all = append(all, &o.bundle.a, &o.bundle.b, &o.active, &o.next)
		}
		for _, c := range all {
			rename(c)
		}
	}
	if last < w.pressed {
		w.pressed, w.worn = 0, 0
	}
	w.ended = min(w.ended, last)
}

// keep makes a backup.
func (w *world) keep() {
	w.backup = &backup{rec: w.rec, version: w.version}
	for i := range w.hosts {
		if h := &w.hosts[i]; h.exists() {
			h.kept = kept{exists: true, covered: h.covered, removed: h.removed, known: h.known}
		}
	}
}
