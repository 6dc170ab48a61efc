package agent

import (
	"context"
	"errors"
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
