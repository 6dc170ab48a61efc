package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestConcerns(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/etc/docker/certs.d", "/etc/docker/certs.d", true},
		{"/etc/docker/certs.d/registry.test:5000/ca.crt", "/etc/docker/certs.d", true},
		{"/etc/docker", "/etc/docker/certs.d", true},
		{"/etc/docker/daemon.json", "/etc/docker/certs.d", false},
		{"/etc/docker/certs.d.old/x", "/etc/docker/certs.d", false},
		{"./busy.log", "certs.d", false},
		{"./certs.d", "certs.d", true},
	} {
		if got := concerns(c.path, c.dir); got != c.want {
			t.Errorf("concerns(%q, %q) = %v", c.path, c.dir, got)
		}
	}
}

// TestWatchMissing: a directory that is missing is seen when it comes, and what
// happens beside it wakes nobody.
func TestWatchMissing(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "certs.d")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var woken atomic.Int64
	done := make(chan error, 1)
	go func() { done <- watchDir(ctx, dir, func() { woken.Add(1) }) }()
	comeAndGo := func() { // until it is seen: at first there may be no watch yet
		for before := woken.Load(); woken.Load() == before; time.Sleep(time.Millisecond) {
			if err := errors.Join(os.Mkdir(dir, 0o755), os.Remove(dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	comeAndGo()
	const busy = 1000
	for range busy {
		if err := os.WriteFile(filepath.Join(parent, "busy.log"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	comeAndGo()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := woken.Load(); n > busy/2 {
		t.Errorf("the agent was woken %d times", n)
	}
}

// TestDroppedEventsAreMadeUpFor: when more happens than the kernel keeps, the watch looks
// at everything anew and goes on.
func TestDroppedEventsAreMadeUpFor(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip("needs Linux's inotify")
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil || most > 100_000 {
		t.Skipf("the kernel keeps %d events here: too many to lose one (%v)", most, err)
	}
	dir := filepath.Join(t.TempDir(), "certs.d")
	sub := filepath.Join(dir, "registry.test:5000")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var woken atomic.Int64
	stuck, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- watchDir(ctx, dir, func() {
			woken.Add(1)
			<-stuck
		})
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			select {
			case err := <-done:
				t.Fatalf("%s: the watch has ended: %v", what, err)
			default:
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not within 20 s", what)
			}
		}
	}
	until("the watch begins", func() bool { return woken.Load() == 1 })
	for i := range 2*most + 10_000 { // two files by turns: equal events in a row are one
		if err := os.Chmod(sub, 0o700+os.FileMode(i%2)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "busy"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(sub, 0o755)); err != nil { // nobody will be told
		t.Fatal(err)
	}
	close(stuck)
	var last int64
	until("all is quiet", func() bool {
		before := last
		last = woken.Load()
		time.Sleep(5 * settle)
		return last > 1 && last == before
	})
	if err := os.WriteFile(filepath.Join(sub, "ca.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until("a change in the new directory is told", func() bool { return woken.Load() > last })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
