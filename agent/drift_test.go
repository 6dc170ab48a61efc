package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// liveHost is a host whose loop and watch run, with a bundle installed and a good
// proof; nobody is connected, so the test reads the reports.
type liveHost struct {
	*dockerHost
	good []byte

	mu      sync.Mutex
	reports int        // guarded by mu
	last    *pb.Report // guarded by mu
	vouched *pb.Report // one that says good of what is contested; guarded by mu
}

// watchAll watches what the agent does.
func (h *liveHost) watchAll(ctx context.Context) error { return h.watch(ctx, h.watched()) }

// newLiveHost runs until the test ends. watch is Config.WatchFile.
func newLiveHost(t *testing.T, watch func(context.Context, string, func()) error) *liveHost {
	t.Helper()
	ca, pair := authorityFor(t, "registry.test")
	h := &liveHost{dockerHost: newDockerHost(t), good: certs.EncodePEM(ca)}
	h.host.Places[0].Dir = filepath.Join(h.cfg.DataDir, "etc", "docker", "certs.d")
	h.cfg.DockerCertsDir = h.host.Places[0].Dir
	if watch != nil {
		h.cfg.WatchFile = watch
	}
	h.drift, h.moved = make(chan struct{}, 1), make(chan []string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{h.loop, h.watchAll, h.readReports} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	offer := offerOf(1, 1, pair.Leaf, ca)
	offer.Leaves = nil // no handshakes: there is no edge
	h.link.offers.put(offer)
	h.until("the bundle is installed and reported", func() bool { _, r := h.reported(); return h.right() && r.GetGeneration() == 1 })
	return h
}

func (h *liveHost) readReports(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.link.reports.nudge:
			if a := h.link.reports.take(); a != nil {
				h.mu.Lock()
				h.reports, h.last = h.reports+1, a.report
				if a.report.GetContested() != "" && a.report.GetOffline() {
					h.vouched = a.report
				}
				h.mu.Unlock()
			}
		}
	}
}

func (h *liveHost) reported() (count int, last *pb.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports, h.last
}

// right: the file holds the bundle, and everybody may read it.
func (h *liveHost) right() bool {
	have, err := os.ReadFile(h.file())
	if err != nil || !bytes.Equal(have, h.good) {
		return false
	}
	info, err := os.Lstat(h.file())
	if err != nil || info.Mode() != 0o644 {
		return false
	}
	for _, dir := range []string{h.host.Places[0].Dir, filepath.Dir(h.file())} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
			return false
		}
	}
	return true
}

func (h *liveHost) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			_, r := h.reported()
			h.t.Fatalf("%s: not within 20 s; the last report: %v", what, r)
		}
	}
}

// harms are what other programs do to our files; each makes something wrong.
func harms(file, certsDir string) map[string]func() error {
	dir, docker := filepath.Dir(file), filepath.Dir(certsDir)
	anew := func(what string, then ...string) func() error {
		times := 0
		return func() error {
			times++ // what is there stays: removing it would tell who watches it still
			err := os.Rename(what, fmt.Sprint(what, ".away", times))
			for _, made := range then {
				err = errors.Join(err, os.Mkdir(made, 0o755))
			}
			return err
		}
	}
	return map[string]func() error{
		"changed":                        func() error { return os.WriteFile(file, []byte("something else"), 0o644) },
		"truncated":                      func() error { return os.Truncate(file, 100) },
		"emptied":                        func() error { return os.Truncate(file, 0) },
		"deleted":                        func() error { return os.Remove(file) },
		"replaced":                       func() error { return errors.Join(os.WriteFile(file+".new", nil, 0o644), os.Rename(file+".new", file)) },
		"a dangling link":                func() error { return errors.Join(os.Remove(file), os.Symlink("nowhere", file)) },
		"file closed to others":          func() error { return os.Chmod(file, 0o600) },
		"file closed to all":             func() error { return os.Chmod(file, 0) },
		"file open to all":               func() error { return os.Chmod(file, 0o666) },
		"directory closed to others":     func() error { return os.Chmod(dir, 0o700) },
		"directory closed to all":        func() error { return os.Chmod(dir, 0) },
		"certs.d closed to others":       func() error { return os.Chmod(certsDir, 0o700) },
		"directory gone":                 func() error { return os.RemoveAll(dir) },
		"certs.d gone":                   func() error { return os.RemoveAll(certsDir) },
		"its parent gone":                func() error { return os.RemoveAll(docker) },
		"directory moved away":           anew(dir),
		"directory replaced":             anew(dir, dir),
		"certs.d moved away":             anew(certsDir),
		"certs.d replaced":               anew(certsDir, certsDir),
		"its parent moved away":          anew(docker),
		"its parent and certs.d renewed": anew(docker, docker, certsDir, dir),
	}
}

// TestDriftIsRepaired: whatever happens to our files and their directories is mended
// at once, twice in a row, and counted. The tick is a minute: only the kernel's events
// can be the reason.
func TestDriftIsRepaired(t *testing.T) {
	var mu sync.Mutex
	var took []time.Duration
	var failed atomic.Bool
	t.Run("all", func(t *testing.T) {
		for what := range harms("", "") {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				if failed.Load() {
					t.Skip("another one has failed")
				}
				defer func() {
					if t.Failed() {
						failed.Store(true)
					}
				}()
				var told atomic.Int64
				h := newLiveHost(t, func(ctx context.Context, dir string, changed func()) error {
					return watchDir(ctx, dir, func() { told.Add(1); changed() })
				})
				harm := harms(h.file(), h.host.Places[0].Dir)[what]
				for round := range uint64(2) {
					// The agent's own writes wake it too: that must not be what finds the harm.
					last, since := told.Load(), time.Now()
					h.until("all is quiet", func() bool {
						if now := told.Load(); now != last {
							last, since = now, time.Now()
						}
						return time.Since(since) > 5*settle
					})
					// The agent may mend what is being removed: then once more.
					h.until("harm is done", func() bool { return harm() == nil })
					began := time.Now()
					h.until("mended", h.right)
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
					h.until("counted and reported as good", func() bool {
						_, r := h.reported()
						return r.GetRepairs() > round && r.GetOffline() && r.GetProblem() == ""
					})
				}
				if _, r := h.reported(); r.GetContested() != "" {
					t.Errorf("contested: %s", r.GetContested())
				}
			})
		}
	})
	if failed.Load() {
		return
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("%d repairs: median %s, slowest %s", len(took), median.Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	if median > time.Second {
		t.Errorf("a repair takes %s", median)
	}
}

// noEvents is a watch that never calls, as where the kernel has no watches left.
func noEvents(ctx context.Context, _ string, _ func()) error {
	<-ctx.Done()
	return nil
}

// TestTickRepairsWithoutEvents: when every event is lost, drift is mended with the
// next tick, and no sooner.
func TestTickRepairsWithoutEvents(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	for what := range harms("", "") {
		synctest.Test(t, func(t *testing.T) {
			h := newLiveHost(t, noEvents)
			synctest.Wait()
			if err := harms(h.file(), h.host.Places[0].Dir)[what](); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(defaultTick - time.Second)
			if h.right() {
				t.Errorf("%s: it was mended before the tick: by what?", what)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if _, r := h.reported(); !h.right() || r.GetRepairs() == 0 || !r.GetOffline() {
				t.Errorf("%s: the tick does not mend it: %v", what, r)
			}
		})
	}
}

// TestFailedWatchIsTriedAgain: a watch that fails is no watch for a tick, not for ever.
func TestFailedWatchIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := 0
		newLiveHost(t, func(ctx context.Context, _ string, _ func()) error {
			if tried++; tried < 3 {
				return fs.ErrPermission
			}
			<-ctx.Done()
			return nil
		})
		time.Sleep(3 * defaultTick)
		synctest.Wait()
		if tried != 3 {
			t.Errorf("the watch was begun %d times, want 3", tried)
		}
	})
}
