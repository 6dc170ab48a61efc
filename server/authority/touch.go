package authority

import "time"

// Touch gives the record a new revision; bundle and generation stay.
func (r Rotation) Touch() Rotation { return r.change() }

// Touch has everybody told anew what is wanted, because something that travels
// beside the bundle changed. A detail makes it a line of the history.
func (a *Authority) Touch(by, detail string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.Nudge()
	rec := a.rec
	rec.Rotation = rec.Rotation.Touch()
	if detail != "" {
		rec.note(Entry{Time: time.Now(), Event: "gossip", By: by, Detail: detail})
	}
	return a.write(rec, "gossip")
}
