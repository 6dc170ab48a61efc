//go:build linux

package fleet_test

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// figures are what the fleet test prints at its end.
type figures struct {
	hosts, pulls, failed, rotations int
	// From `ca rotate` to the last host's file and to the last evidence, which
	// is the switch, in rotations that nobody held up.
	file, evidence []time.Duration
}

func (s *figures) String() string {
	return fmt.Sprintf("fleet: hosts %d, pulls attempted %d, pulls failed %d, rotations %d; from `ca rotate` to the last host's file: median %v max %v; to the last evidence: median %v max %v",
		s.hosts, s.pulls, s.failed, s.rotations, median(s.file), longest(s.file), median(s.evidence), longest(s.evidence))
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2].Round(time.Millisecond)
}

func longest(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.Max(d).Round(time.Millisecond)
}

// fileWatch notes when the certificate file of each host first changes.
type fileWatch struct {
	stop chan struct{} // closed to end the watch
	wg   sync.WaitGroup

	mu      sync.Mutex // guards changed
	changed map[string]time.Time
}

func watchFiles(hosts []*host) *fileWatch {
	w := &fileWatch{stop: make(chan struct{}), changed: map[string]time.Time{}}
	for _, h := range hosts {
		before := changeTime(h.certFile())
		w.wg.Go(func() { w.watch(h, before) })
	}
	return w
}

// watch looks every 2 ms: fine enough for figures of tens of milliseconds.
func (w *fileWatch) watch(h *host, before time.Time) {
	for last := false; ; {
		if now := changeTime(h.certFile()); !now.IsZero() && !now.Equal(before) {
			w.mu.Lock()
			w.changed[h.name] = now
			w.mu.Unlock()
			return
		}
		if last {
			return
		}
		select {
		case <-w.stop:
			last = true
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// end returns when the last host's file first changed.
func (w *fileWatch) end() time.Time {
	close(w.stop)
	w.wg.Wait()
	var latest time.Time
	for _, at := range w.changed {
		if at.After(latest) {
			latest = at
		}
	}
	return latest
}

// changeTime is the kernel's time of the rename that put the file there.
func changeTime(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	st := info.Sys().(*syscall.Stat_t)
	return time.Unix(st.Ctim.Unix())
}
