package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestSkopeo makes each ailment of a directory and asks a real skopeo, which reads as
// podman, buildah and CRI-O do and trusts no loopback address, what it does with it.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("needs skopeo")
	}
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"nothing":             func(*testing.T, string) {},
		"a directory x.crt":   func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "x.crt"), 0o755)) },
		"a dangling link":     func(t *testing.T, dir string) { must(t, os.Symlink("/nowhere", filepath.Join(dir, "x.crt"))) },
		"a link to itself":    func(t *testing.T, dir string) { must(t, os.Symlink("x.crt", filepath.Join(dir, "x.crt"))) },
		"a link to a folder":  func(t *testing.T, dir string) { must(t, os.Symlink("..", filepath.Join(dir, "x.crt"))) },
		"a cert without key":  func(t *testing.T, dir string) { put(t, dir, "x.cert", "") },
		"a key without cert":  func(t *testing.T, dir string) { put(t, dir, "x.key", "") },
		"a pair of nothing":   func(t *testing.T, dir string) { put(t, dir, "x.key", ""); put(t, dir, "x.cert", "") },
		"garbage":             func(t *testing.T, dir string) { put(t, dir, "x.crt", "garbage") },
		"an empty ca.crt":     func(t *testing.T, dir string) { put(t, dir, "ca.crt", "") },
		"no ca.crt":           func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "ca.crt"))) },
		"a hidden file":       func(t *testing.T, dir string) { put(t, dir, ".x.crt", "garbage") },
		"garbage of all ends": func(t *testing.T, dir string) { put(t, dir, "ca.crt.old", "x"); put(t, dir, "README", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.rename("127.0.0.1")
			s.Places[0].Runtime = "containers"
			spoil(t, s.dir())
			cmd := exec.CommandContext(t.Context(), skopeo, "inspect", "--no-creds", "--tls-verify=true", "--cert-dir", s.dir(), "docker://"+s.name.String()+"/x:y")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}
			out, err := cmd.CombinedOutput()
			if f := s.examine(); (Verdict(f) == Fail) == s.skopeo.Load() {
				t.Errorf("skopeo got through: %v (%v %s)\n%v", s.skopeo.Load(), err, out, f)
			}
		})
	}
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
}
