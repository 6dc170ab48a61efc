package agent

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fighter is another program that wants our path otherwise; it looks ten times a
// second and tells as the kernel would.
type fighter struct {
	change func() (changed bool)

	mu      sync.Mutex
	resting bool // guarded by mu
	changes int  // guarded by mu
}

func (f *fighter) rest(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resting = on
}

func (f *fighter) done() (changes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

func (f *fighter) watch(ctx context.Context, _ string, told func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
		f.mu.Lock()
		if !f.resting && f.change() {
			f.changes++
			told()
		}
		f.mu.Unlock()
	}
}

// TestFightIsBackedOffFrom: another program that writes our file again and again is
// named to people here and at the server, costs few repairs and few reports, and is
// no evidence of anything. When it stops, all is as before.
func TestFightIsBackedOffFrom(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		f := &fighter{resting: true}
		h := newLiveHost(t, f.watch)
		f.change = func() bool {
			have, err := os.ReadFile(h.file())
			return err == nil && !bytes.Equal(have, []byte("mine")) && os.WriteFile(h.file(), []byte("mine"), 0o644) == nil
		}
		before, _ := h.reported()
		f.rest(false)
		const fought = 10 * time.Minute
		time.Sleep(fought)
		after, r := h.reported()
		changes := f.done()
		t.Logf("%s of fighting: %d changes by the other, %d repairs, %d reports", fought, changes, r.GetRepairs(), after-before)
		// 5 at once, 1+2+4+8+16+32 s apart, then each minute; a report at each, and when a wait ends.
		if most := 25; int(r.GetRepairs()) > most || changes > most || after-before > 2*most {
			t.Errorf("%d changes, %d repairs, %d reports: it is fought with", changes, r.GetRepairs(), after-before)
		}
		if r.GetRepairs() < 10 {
			t.Errorf("%d repairs: it is given up", r.GetRepairs())
		}
		if r.GetContested() != h.file() || r.GetOffline() || r.GetProblem() != contestedText(h.file()) {
			t.Errorf("the server does not hear of it: %v", r)
		}
		h.mu.Lock()
		if h.vouched != nil {
			t.Errorf("evidence although it is contested: %v", h.vouched)
		}
		h.mu.Unlock()
		f.rest(true)
		time.Sleep(defaultTick + changesWithin + time.Second)
		synctest.Wait()
		if _, r := h.reported(); !h.right() || r.GetContested() != "" || !r.GetOffline() || r.GetProblem() != "" {
			t.Errorf("it is over: %v", r)
		}
		h.write(h.file(), nil)
		h.stirred()
		synctest.Wait()
		if !h.right() {
			t.Error("after a fight, drift is not mended at once")
		}
	})
}

// TestRestlessNeighbour: what others do beside our file, and breaks pulls by turns, does
// not become a report each time; a busy file that is none of ours is none at all.
func TestRestlessNeighbour(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		f := &fighter{resting: true}
		h := newLiveHost(t, f.watch)
		key := filepath.Join(filepath.Dir(h.file()), "client.key")
		f.change = func() bool {
			if os.Remove(key) != nil {
				h.write(key, nil)
			}
			return true
		}
		before, _ := h.reported()
		f.rest(false)
		time.Sleep(5 * time.Minute)
		after, r := h.reported()
		changes := f.done()
		t.Logf("%d changes beside the file: %d reports", changes, after-before)
		if changes < 1000 || after-before > 50 {
			t.Errorf("%d changes beside the file: %d reports", changes, after-before)
		}
		if r.GetContested() != h.file() || r.GetRepairs() != 0 {
			t.Errorf("%v", r)
		}
		f.rest(true)
		_ = os.Remove(key)
		time.Sleep(2 * defaultTick)
		f.change = func() bool { h.write(key[:len(key)-4]+"-other.txt", nil); return true }
		before, _ = h.reported()
		f.rest(false)
		time.Sleep(2 * time.Minute)
		if after, r := h.reported(); after-before > 3 || r.GetContested() != "" { // a tick each
			t.Errorf("a file that is none of ours: %d reports, %v", after-before, r)
		}
	})
}
