package agent

import (
	"context"
	"os"
	"path/filepath"
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
	var come, early atomic.Bool
	woken, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- watchDir(ctx, dir, func() {
			if !come.Load() {
				early.Store(true)
			}
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.After(30 * time.Second); ; { // until the watch is there
		for range 20 {
			if err := os.WriteFile(filepath.Join(parent, "busy.log"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		come.Store(true)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		select {
		case <-woken:
			if early.Load() {
				t.Error("a file beside it woke the agent")
			}
			return
		case <-deadline:
			t.Fatal("its coming woke nobody")
		case <-time.After(50 * time.Millisecond): // it was made before the watch
			come.Store(false)
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}
