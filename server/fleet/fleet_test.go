package fleet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

const gone = 10 * time.Minute

// newFleet opens a fleet over a directory made outside of the bubble.
func newFleet(t *testing.T, dir string, alive func(string) bool) *Fleet {
	t.Helper()
	store, err := records.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(Config{Records: store, GoneAfter: gone, Alive: alive, Changed: func(string) {}, Dropped: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func attach(t *testing.T, f *Fleet, id string) *Stream {
	t.Helper()
	s, err := f.Attach(context.Background(), id, "10.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func report(t *testing.T, s *Stream, boot, seq uint64) {
	t.Helper()
	if err := s.Report(certs.Evidence{Boot: boot, Sequence: seq}, Details{}); err != nil {
		t.Fatal(err)
	}
}

// TestPresence: from the last sign or the opening, whichever is later.
func TestPresence(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, dir, nil)
		present := func(when string, want bool) {
			t.Helper()
			if got := f.State("a").Present; got != want {
				t.Errorf("%s: present %v", when, got)
			}
		}
		present("never heard of, just opened", true)
		time.Sleep(gone - time.Second)
		present("just before gone-after", true)
		time.Sleep(time.Second)
		present("gone-after later", false)
		s := attach(t, f, "a")
		report(t, s, 1, 1)
		time.Sleep(24 * time.Hour)
		present("a stream is open", true)
		s.Close()
		time.Sleep(gone - time.Second)
		present("just before gone-after its end", true)
		time.Sleep(time.Second)
		present("gone-after its end", false)
		f = newFleet(t, dir, nil)
		present("the server restarted", true)
		if f.State("a").Evidence != nil {
			t.Error("evidence survived a restart")
		}
	})
}

// TestGossipKeepsPresent: gossip can keep a host waited for, and its end starts
// the clock like any other last sign.
func TestGossipKeepsPresent(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		alive := true
		f := newFleet(t, dir, func(string) bool { return alive })
		attach(t, f, "a").Close()
		time.Sleep(3 * gone)
		if !f.State("a").Present {
			t.Error("gone although gossip sees it")
		}
		alive = false
		if !f.State("a").Present {
			t.Error("gossip released a host at once")
		}
		time.Sleep(gone)
		if f.State("a").Present {
			t.Error("present without any sign")
		}
	})
}

// TestReportsWithoutRecords: a host whose "last seen" cannot be written goes on
// reporting, and is written when it can be.
func TestReportsWithoutRecords(t *testing.T) {
	dir := t.TempDir()
	f := newFleet(t, dir, nil)
	s := attach(t, f, "a")
	inTheWay := filepath.Join(dir, "fleet") // root writes into every directory
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	report(t, s, 1, 1)
	if got := f.State("a"); !got.Connected || got.Evidence == nil || got.Evidence.Sequence != 1 || !got.LastSeen.IsZero() {
		t.Errorf("while nothing can be written: %+v", got)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	report(t, s, 1, 2)
	if got := f.State("a"); got.LastSeen.IsZero() || got.Evidence.Sequence != 2 {
		t.Errorf("when it can be written again: %+v", got)
	}
}

// TestClone: a second live stream is refused while the first answers; a dead
// one is replaced.
func TestClone(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, dir, nil)
		first := attach(t, f, "a")
		report(t, first, 1, 1)
		done := make(chan struct{})
		go func() { // the first host answers when it is woken
			defer close(done)
			for seq := uint64(2); ; seq++ {
				select {
				case <-first.Woken():
					report(t, first, 1, seq)
				case <-first.Ended():
					return
				}
			}
		}()
		if _, err := f.Attach(context.Background(), "a", "10.0.0.9:1"); !errors.Is(err, ErrCloned) {
			t.Errorf("second stream: %v", err)
		}
		if s := f.State("a"); !s.Connected || s.Cloned.Address != "10.0.0.9:1" || s.Cloned.At.IsZero() {
			t.Errorf("the first stream was hurt, or the clone is not named: %+v", s)
		}
		first.Close()
		<-done
		silent := attach(t, f, "a") // never answers
		newer := attach(t, f, "a")
		select {
		case <-silent.Ended():
		default:
			t.Error("the silent stream goes on")
		}
		if err := silent.Report(certs.Evidence{Boot: 9, Sequence: 9}, Details{}); err == nil {
			t.Error("a report over a replaced stream is taken")
		}
		newer.Close()
	})
}

// TestNewestReportWins: within a stream an older report is dropped; a new stream
// starts anew.
func TestNewestReportWins(t *testing.T) {
	f := newFleet(t, t.TempDir(), nil)
	s := attach(t, f, "a")
	report(t, s, 2, 5)
	report(t, s, 2, 4)
	report(t, s, 1, 9)
	if e := f.State("a").Evidence; e.Boot != 2 || e.Sequence != 5 {
		t.Errorf("evidence %d,%d", e.Boot, e.Sequence)
	}
	s.Close()
	s = attach(t, f, "a")
	report(t, s, 1, 1) // a machine restored from an image
	if e := f.State("a").Evidence; e.Boot != 1 || e.Sequence != 1 {
		t.Errorf("evidence of the newest stream is %d,%d", e.Boot, e.Sequence)
	}
	s.Close()
}

// TestAddressIsDurable: where the newest stream came from, without port.
func TestAddressIsDurable(t *testing.T) {
	dir := t.TempDir()
	f := newFleet(t, dir, nil)
	from := func(address, want string) {
		t.Helper()
		s := attach(t, f, "a")
		if err := s.Report(certs.Evidence{}, Details{Address: address}); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got := f.State("a").Address; got != want {
			t.Errorf("from %s: the address is %q", address, got)
		}
		f = newFleet(t, dir, nil)
		if got := f.State("a").Address; got != want {
			t.Errorf("from %s: after a restart the address is %q", address, got)
		}
	}
	from("10.0.0.1:4711", "10.0.0.1")
	from("10.0.0.1:4712", "10.0.0.1")
	from("[::ffff:10.0.0.2]:4711", "10.0.0.2")
	from("[2001:db8::1]:4711", "2001:db8::1")
	from("in memory", "")
}

func TestCoveredIsDurable(t *testing.T) {
	dir := t.TempDir()
	f := newFleet(t, dir, nil)
	if err := f.Cover("removed"); err != nil || f.State("removed").Covered {
		t.Errorf("a host that is not there is covered (%v)", err)
	}
	attach(t, f, "a").Close()
	for range 2 {
		if err := f.Cover("a"); err != nil {
			t.Fatal(err)
		}
	}
	if f = newFleet(t, dir, nil); !f.State("a").Covered {
		t.Error("forgotten")
	}
	if err := f.Uncover("a"); err != nil {
		t.Fatal(err)
	}
	if f = newFleet(t, dir, nil); f.State("a").Covered {
		t.Error("a new enrolment is covered without evidence")
	}
	s := attach(t, f, "a")
	if err := f.Drop("a"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Ended():
	default:
		t.Error("a removed host keeps its stream")
	}
	if len(newFleet(t, dir, nil).hosts) != 0 {
		t.Error("a removed host left a record")
	}
}
