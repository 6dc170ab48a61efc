package registry

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/below"
)

// plant puts what a replica in foreign hands could leave among the images, and a
// secret beside them.
func plant(t *testing.T, s *shelf) (secret string) {
	t.Helper()
	state := filepath.Join(s.root, "state", "keys")
	must(t, os.MkdirAll(state, 0o700))
	secret = filepath.Join(state, "ca.key")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	then := time.Now().Add(-2 * collectYoungest)
	must(t, os.Chtimes(secret, then, then))
	return secret
}

// What replicas leave cannot lead a collection out of the images.
func TestCollectFollowsNoLink(t *testing.T) {
	for what, to := range map[string]string{
		"uploads":    "docker/registry/v2/repositories/app/_uploads",
		"layers":     "docker/registry/v2/repositories/app/_layers",
		"repository": "docker/registry/v2/repositories/other",
		"blobs":      "docker/registry/v2/blobs/sha256/aa",
	} {
		t.Run(what, func(t *testing.T) {
			s := newShelf(t)
			s.push("app:v1")
			s.age()
			secret := plant(t, s)
			link := filepath.Join(s.root, to)
			for n := 0; what == "blobs"; n++ { // where the image has none: its own are refused in other words
				link = filepath.Join(filepath.Dir(link), fmt.Sprintf("%02x", n))
				if _, err := os.Lstat(link); err != nil {
					break
				}
			}
			must(t, os.RemoveAll(link))
			must(t, os.Symlink(filepath.Dir(filepath.Dir(secret)), link))
			d, err := Driver(s.e.cfg.Parameters, s.root)(t.Context())
			must(t, err)
			if _, err := collect(t.Context(), d, CollectOptions{Untagged: true}, time.Now(), quiet); !errors.Is(err, below.ErrForeign) && (err == nil || !strings.Contains(err.Error(), "no registry wrote this")) {
				t.Errorf("error %v", err)
			}
			if content, err := os.ReadFile(secret); err != nil || string(content) != "secret" {
				t.Errorf("the secret: %q, %v", content, err)
			}
		})
	}
}

// A pipe and an endless file do not stop the server.
func TestPurgeIsNotHeld(t *testing.T) {
	s := newShelf(t)
	began := upload(t, s.e)
	at, err := filepath.Glob(filepath.Join(s.root, "docker/registry/v2/repositories/app/_uploads/*/startedat"))
	must(t, err)
	if len(at) != 1 || began == nil {
		t.Fatal(at)
	}
	for what, make := range map[string]func() error{
		"a pipe":          func() error { return syscall.Mkfifo(at[0], 0o600) },
		"a huge file":     func() error { return errors.Join(os.WriteFile(at[0], nil, 0o600), os.Truncate(at[0], 1<<40)) },
		"a link to zeros": func() error { return os.Symlink("/dev/zero", at[0]) },
	} {
		must(t, os.Remove(at[0]))
		must(t, make())
		done := time.Now()
		if err := purgeOnce(t.Context(), rooted{s.root}, s.e.cfg.Parameters.Purge(), s.e.cfg.Log); err == nil {
			t.Errorf("%s was taken for the time of an upload", what)
		}
		if took := time.Since(done); took > 5*time.Second {
			t.Errorf("%s took %v", what, took)
		}
	}
}

// An embedded registry serves nothing that replicas have left links in: it would serve
// keys.
func TestEmbeddedRefusesLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files to another user")
	}
	s := newShelf(t)
	s.push("app:v1")
	secret := plant(t, s)
	docker := filepath.Join(s.root, "docker")
	link := filepath.Join(docker, "registry/v2/blobs/sha256/aa")
	must(t, os.RemoveAll(link))
	must(t, os.Symlink(filepath.Dir(secret), link))
	must(t, os.Chown(docker, unprivileged, unprivileged)) // as replicas leave it
	if _, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: s.root}); !errors.Is(err, below.ErrForeign) || !strings.Contains(err.Error(), "sha256/aa") {
		t.Errorf("error %v", err)
	}
	must(t, os.Remove(link))
	e := newEmbedded(t, EmbeddedConfig{Root: s.root})
	if resp := answer(t, e, http.MethodGet, "/v2/app/tags/list", nil); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// The data directory is the server's, whoever had it: replicas see all of it.
func TestReplicasCannotWriteBesideTheImages(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files to another user")
	}
	dir := t.TempDir()
	must(t, os.Chown(dir, unprivileged, unprivileged))
	must(t, os.Chmod(dir, 0o777))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	must(t, prepare(root, owner{unprivileged, unprivileged}))
	info, err := os.Stat(dir)
	must(t, err)
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 || info.Mode().Perm()&0o022 != 0 || info.Mode().Perm()&0o001 == 0 {
		t.Errorf("the data directory is %d's, %v", stat.Uid, info.Mode())
	}
}
