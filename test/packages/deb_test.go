package packages

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDebs builds the packages twice and has lintian look at them.
func TestDebs(t *testing.T) {
	needRoot(t) // builds both programs as they are shipped, which takes its time
	need(t, "dpkg-deb", "lintian")
	t.Setenv(compression, "xz") // lintian looks at what is shipped
	dir, err := filepath.Abs(t.TempDir())
	must(t, err)
	server, agent := packagesOf(t, "v1.2.3-4-gabc1234", filepath.Join(dir, "1"))
	server2, agent2 := packagesOf(t, "v1.2.3-4-gabc1234", filepath.Join(dir, "2"))
	for first, second := range map[string]string{server: server2, agent: agent2} {
		if sum(t, first) != sum(t, second) {
			t.Errorf("%s is different each time it is made", filepath.Base(first))
		}
		info, err := os.Stat(first)
		must(t, err)
		t.Logf("%s: %.1f MB", filepath.Base(first), float64(info.Size())/1e6)
	}
	if name := filepath.Base(server); !strings.HasPrefix(name, "trustcast_1.2.3+git4.abc1234_") {
		t.Errorf("the package of v1.2.3-4-gabc1234 is called %s", name)
	}
	out, err := try("lintian", "--allow-root", "--no-tag-display-limit", "--fail-on", "error,warning", server, agent)
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// TestDebianVersions: later commits are later versions for dpkg, too.
func TestDebianVersions(t *testing.T) {
	need(t, "dpkg", "git")
	described := []string{"0a1b2c3", "v0.1.0-rc.1", "v0.1.0-rc.1-2-g0a1b2c3", "v0.1.0", "v0.1.0-3-g0a1b2c3", "v0.1.0-3-g0a1b2c3-dirty", "v0.1.1", "v0.10.0"}
	var versions []string
	for _, d := range described {
		versions = append(versions, strings.TrimSpace(run(t, "deploy/deb/version.sh", d)))
	}
	for i := 1; i < len(versions); i++ {
		if i == 1 {
			continue // before the first tag and before its release: nobody has both
		}
		if _, err := try("dpkg", "--compare-versions", versions[i-1], "lt", versions[i]); err != nil {
			t.Errorf("%s (%s) is not before %s (%s)", versions[i-1], described[i-1], versions[i], described[i])
		}
	}
	if _, err := try("dpkg", "--compare-versions", versions[0], "lt", "0.1.0"); err != nil {
		t.Errorf("%s is not before 0.1.0", versions[0])
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return sha256.Sum256(data)
}
