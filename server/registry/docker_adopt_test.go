package registry

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/test/images"
)

// TestDockerFindsWhoUsesAVolume: a volume that is there is found and never made, and
// those that work on it are named.
func TestDockerFindsWhoUsesAVolume(t *testing.T) {
	images.Docker(t)
	image := images.Registry(t)
	name := strings.ToLower(fmt.Sprintf("tct-%d-%s", os.Getpid(), newReplicaID()))
	if _, err := FindVolume(t.Context(), "", name); err == nil || !strings.Contains(err.Error(), "no Docker volume "+name) {
		t.Fatalf("a volume that is not there: %v", err)
	}
	t.Cleanup(func() {
		if left := docker(t, "ps", "--all", "--quiet", "--filter", "volume="+name); left != "" {
			docker(t, "rm", "--force", left)
		}
		docker(t, "volume", "rm", name)
	})
	docker(t, "volume", "create", name)
	dir, err := FindVolume(t.Context(), "", name)
	must(t, err)
	if _, err := os.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
	if names, err := Mounted(t.Context(), "", dir); err != nil || len(names) > 0 {
		t.Errorf("nobody runs, and %v use it (%v)", names, err)
	}
	docker(t, "run", "--detach", "--name", name, "--network", "none", "--volume", name+":/var/lib/registry", image)
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	for _, at := range []string{dir, link, filepath.Join(dir, "docker"), filepath.Dir(dir)} {
		if names, err := Mounted(t.Context(), "", at); err != nil || !slices.Contains(names, name) {
			t.Errorf("%s is used by %v (%v), want %s", at, names, err, name)
		}
	}
	if names, err := Mounted(t.Context(), "", t.TempDir()); err != nil || slices.Contains(names, name) {
		t.Errorf("a directory of nobody is used by %v (%v)", names, err)
	}
	docker(t, "stop", "--time", "0", name)
	if names, err := Mounted(t.Context(), "", dir); err != nil || slices.Contains(names, name) {
		t.Errorf("stopped, it is used by %v (%v)", names, err)
	}
}
