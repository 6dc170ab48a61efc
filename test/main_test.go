package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// shared is what tests of this package share, made by whoever needs it first.
var shared string

// TestMain removes what tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared != "" {
		_ = os.RemoveAll(shared)
	}
	os.Exit(code)
}

// build makes both programs, once, and returns their directory.
var build = sync.OnceValues(func() (bin string, err error) {
	if shared, err = os.MkdirTemp("", "trustcast-test-"); err != nil {
		return "", err
	}
	bin = filepath.Join(shared, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "../cmd/trustcast", "../cmd/trustcast-agent").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

// programsDir has both programs, for tests that run them.
func programsDir(t *testing.T) string {
	t.Helper()
	bin, err := build()
	noError(t, err)
	return bin
}
