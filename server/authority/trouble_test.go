package authority

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLeafFromAClockThatWasAhead: a leaf that is not valid yet is replaced once a
// host's report says that the clock is right, and not before: the clock may be
// behind as well, and the leaf good.
func TestLeafFromAClockThatWasAhead(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	id := r.a.rec.Rotation.Active
	if err := r.a.renewLeaves(id, time.Now().Add(20*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	ahead := r.a.rec.Leaves[0].Cert
	r.hosts[0].Evidence = nil
	r.steps()
	if string(r.a.rec.Leaves[0].Cert) != string(ahead) {
		t.Error("replaced although nobody says whose clock is wrong")
	}
	r.cfg.ClockOff = func() bool { return true }
	r.open()
	r.ack("web-1")
	if string(r.a.rec.Leaves[0].Cert) != string(ahead) {
		t.Error("replaced by a clock that is off")
	}
	r.cfg.ClockOff = nil
	r.open()
	r.ack("web-1")
	if string(r.a.rec.Leaves[0].Cert) == string(ahead) {
		t.Error("the leaf that nobody accepts stays")
	}
}

// TestFailedWritesLeaveNoKeys: the keys of records that could not be written stay
// until one could, since nobody knows what is on the disk; and status says what is
// wrong.
func TestFailedWritesLeaveNoKeys(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	dir := r.dir
	if err := os.Rename(filepath.Join(dir, "authority.json"), filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "authority.json"), 0o700); err != nil { // no rename replaces it
		t.Fatal(err)
	}
	for range 5 {
		if _, _, err := r.a.Rotate("uid 0", Start{}); err == nil {
			t.Fatal("rotated without a record")
		}
		if _, err := r.a.step(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := r.keys.List(); err != nil || len(have) != 2+5*2 {
		t.Errorf("%d keys (%v): some were destroyed although a record may name them", len(have), err)
	}
	if err := os.Remove(filepath.Join(dir, "authority.json")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.a.Rotate("uid 0", Start{}); err != nil {
		t.Fatal(err)
	}
	if have, err := r.keys.List(); err != nil || len(have) != 4 {
		t.Errorf("%d keys (%v), want those of two CAs and their leaves", len(have), err)
	}
	r.a.complain(errors.New("no space left on device"))
	state, err := r.a.State()
	if err != nil || !strings.Contains(state.Stuck, "no space") {
		t.Errorf("status says %q (%v)", state.Stuck, err)
	}
	r.a.complain(nil)
	if state, _ := r.a.State(); state.Stuck != "" {
		t.Errorf("and still: %q", state.Stuck)
	}
}

// TestOneRestoreInTheHistory: however often a host raises the generation.
func TestOneRestoreInTheHistory(t *testing.T) {
	var rec record
	for _, event := range []string{"created", "restore", "restore", "restore", "open", "restore"} {
		rec.note(Entry{Event: event})
	}
	if len(rec.History) != 4 {
		t.Errorf("%d lines: %+v", len(rec.History), rec.History)
	}
}
