package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMendTouchesOnlyItsOwn: --fix gives back modes, content and links of this agent's
// files, and what a link of somebody else leads to stays as it is.
func TestMendTouchesOnlyItsOwn(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	h := newDockerHost(t)
	h.cfg.DockerCertsDir = h.host.Places[0].Dir // runtimes are looked for again
	if problem := h.reconcile(offerOf(1, 1, pair.Leaf, ca)); problem != "" {
		t.Fatal(problem)
	}
	want, err := os.ReadFile(h.file())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(h.file())
	secret, beside := filepath.Join(t.TempDir(), "secret"), filepath.Join(dir, "other.crt")
	h.write(secret, []byte("somebody else's"))
	h.write(beside, []byte("somebody else's"))
	for _, path := range []string{secret, beside} {
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.write(filepath.Join(dir, ".ca.crt4711"), nil)
	h.write(filepath.Join(dir, ".other.crt4711"), nil)
	if err := os.Remove(h.file()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, h.file()); err != nil {
		t.Fatal(err)
	}

	did, err := h.mend(true)
	if err != nil || !strings.Contains(strings.Join(did, "\n"), "left-over files removed") {
		t.Errorf("mended %q (%v)", did, err)
	}
	if link, err := os.Readlink(h.file()); err != nil || link != secret {
		t.Errorf("beside a running agent, which installs: %q (%v)", link, err)
	}
	if did, err = h.mend(false); err != nil || len(did) != 1 || !strings.Contains(did[0], "installed again") {
		t.Errorf("mended %q (%v)", did, err)
	}
	if got, err := os.ReadFile(h.file()); err != nil || string(got) != string(want) {
		t.Errorf("our file is %q (%v)", got, err)
	}
	for _, path := range []string{secret, beside} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", path, info.Mode(), err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "somebody else's" {
			t.Errorf("%s is %q (%v)", path, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".other.crt4711")); err != nil {
		t.Errorf("somebody else's temporary file: %v", err)
	}
	if did, err = h.mend(false); err != nil || len(did) != 0 {
		t.Errorf("nothing was left to mend: %q (%v)", did, err)
	}
}
