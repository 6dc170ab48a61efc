package packages

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

// top is the repository's root.
const top = "../.."

// need skips the test, by name, for want of a tool.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			images.Skip(t, "needs "+tool)
		}
	}
}

// needRoot skips the test where it may not make namespaces.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Getenv("TRUSTCAST_FLEET") != "1":
		t.Skip("needs TRUSTCAST_FLEET=1 (make fleet-test sets it)")
	case os.Geteuid() != 0:
		t.Skip("needs root, for a root directory and namespaces of its own")
	}
}

// run runs a program in the repository's root to its end and returns what it printed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := try(argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

func try(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = top
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// programs builds both programs as they are shipped, once, into bin/, and what belongs
// beside them in a package.
var programs = sync.OnceValue(func() error {
	if out, err := try("make", "--no-print-directory", "man", "completions"); err != nil {
		return fmt.Errorf("make man completions: %w\n%s", err, out)
	}
	return nil
})

// compression is what build.sh has packages compressed with. xz, as they are shipped,
// takes five times as long.
const compression = "DEB_COMPRESSION"

// packagesOf makes the packages of a version as `make deb` does, and returns their
// files: server, agent.
func packagesOf(t *testing.T, version, dir string) (server, agent string) {
	t.Helper()
	need(t, "dpkg-deb", "make", "go", "git")
	must(t, programs())
	// The packages of a test are not sent anywhere.
	t.Setenv("DPKG_DEB_COMPRESSOR_LEVEL", "1")
	if os.Getenv(compression) == "" {
		t.Setenv(compression, "gzip")
	}
	made := strings.Fields(run(t, "deploy/deb/build.sh", version, dir))
	if len(made) != 2 || !strings.Contains(made[0], "/trustcast_") || !strings.Contains(made[1], "/trustcast-agent_") {
		t.Fatalf("build.sh made %q, want the packages of server and agent", made)
	}
	return made[0], made[1]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until polls a condition until it holds.
func until(t *testing.T, bound time.Duration, what string, cond func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for {
		ok, saw := cond()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %s", what, bound, saw)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// buffer is what a process in the background has printed.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
