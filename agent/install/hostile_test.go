package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/foreign"
)

// TestNoWayOut: no link that somebody made leads a write, a read or a removal out of
// the directory of certificates.
func TestNoWayOut(t *testing.T) {
	for what, c := range map[string]struct {
		harm   func(t *testing.T, s System, secret string)
		mended bool
	}{
		"the registry's directory is a link": {func(t *testing.T, s System, secret string) {
			must(t, os.RemoveAll(s.path(dockers)))
			must(t, os.Symlink(filepath.Dir(secret), filepath.Clean(s.path(dockers))))
		}, false},
		"our file is a link": {func(t *testing.T, s System, secret string) {
			must(t, os.Remove(s.path(dockers+"ca.crt")))
			must(t, os.Symlink(secret, s.path(dockers+"ca.crt")))
		}, true},
		"our file is a link beside": {func(t *testing.T, s System, _ string) {
			must(t, os.Rename(s.path(dockers+"ca.crt"), s.path(dockers+"other")))
			must(t, os.Symlink("other", s.path(dockers+"ca.crt")))
		}, true},
		"our file is a pipe": {func(t *testing.T, s System, _ string) {
			must(t, os.Remove(s.path(dockers+"ca.crt")))
			must(t, syscall.Mkfifo(s.path(dockers+"ca.crt"), 0o644))
		}, true},
		"our file is endless": {func(t *testing.T, s System, _ string) { must(t, os.Truncate(s.path(dockers+"ca.crt"), 1<<40)) }, true},
	} {
		t.Run(what, func(t *testing.T) {
			s := machine(t, map[string]string{"secret/ca.crt": "a secret"})
			secret := s.path("secret/ca.crt")
			h, owned := installed(t, s)
			c.harm(t, s, secret)
			begin := time.Now()
			if f := h.Read(plain(t), owned)[0]; f.Problem == "" || f.Fingerprint != "" {
				t.Errorf("not seen: %+v", f)
			}
			err := h.Apply(plain(t), owned, newPEM(t))
			if (err == nil) != c.mended {
				t.Errorf("applied: %v", err)
			}
			if f := h.Read(plain(t), owned)[0]; (f.Problem == "") != c.mended {
				t.Errorf("afterwards: %+v", f)
			}
			if _, err := h.Remove(owned); err != nil {
				t.Error(err)
			}
			if data, err := os.ReadFile(secret); err != nil || string(data) != "a secret" {
				t.Errorf("the secret is %q (%v)", data, err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("all that took %v", took)
			}
		})
	}
}

// alice has a rootless engine on a machine; what lies outside of her home is root's.
func alice(t *testing.T) (s System, home string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user")
	}
	s = machine(t, map[string]string{"secret/ca.crt": "a secret", "secret/certs.d/": ""})
	for dir := s.Root; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755)) // that of a test is closed to others
	}
	must(t, os.Chmod(s.path("secret"), 0o700))
	home = s.path("home/alice")
	must(t, os.MkdirAll(s.path("home"), 0o755))
	must(t, os.MkdirAll(filepath.Join(home, ".local/share/docker"), 0o700))
	must(t, os.MkdirAll(s.path("etc"), 0o755))
	must(t, os.WriteFile(s.path("etc/passwd"), fmt.Appendf(nil, "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:%d:%d::/home/alice:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n", nobody, nobody), 0o644))
	theirs(t, home)
	return s, home
}

// theirs gives a path, and all below it, to alice.
func theirs(t *testing.T, path string) {
	t.Helper()
	must(t, filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	}))
}

// TestRootless: what is made in a home is its user's, and goes again.
func TestRootless(t *testing.T) {
	for _, runtimes := range [][]string{{Auto}, {"docker", "rootless"}, {"docker", "rootless:alice"}} {
		s, home := alice(t)
		before := tree(t, home)
		h, owned := installed(t, s, runtimes...)
		found := at(t, h.Read(plain(t), owned), "rootless:alice")
		if len(found) != 1 || found[0].Problem != "" || found[0].Aside != (runtimes[0] == Auto) {
			t.Fatalf("%v: %+v", runtimes, found)
		}
		path := filepath.Join(home, ".config/docker/certs.d/registry.test:5000/ca.crt")
		for at := path; at != home; at = filepath.Dir(at) {
			info, err := os.Lstat(at)
			must(t, err)
			if owner := info.Sys().(*syscall.Stat_t); owner.Uid != nobody || owner.Gid != nobody {
				t.Errorf("%s belongs to %d:%d", at, owner.Uid, owner.Gid)
			}
		}
		must(t, os.Chmod(filepath.Join(home, ".config"), 0o700)) // which is hers to say
		must(t, h.Apply(plain(t), owned, newPEM(t)))
		if info, err := os.Stat(filepath.Join(home, ".config")); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf(".config is open again: %v %v", info.Mode(), err)
		}
		if f := at(t, h.Read(plain(t), owned), "rootless:alice")[0]; f.Problem != "" {
			t.Errorf("in a closed .config: %s", f.Problem)
		}
		if _, err := (Host{}).Remove(owned); err != nil {
			t.Error(err)
		}
		if after := tree(t, home); len(after) != len(before) {
			t.Errorf("%v is not as it was: %v", after, before)
		}
	}
}

// TestHostileHome: a user's links lead nowhere where the user may not write, nothing
// outside changes its owner, and no home keeps the CA from Docker.
func TestHostileHome(t *testing.T) {
	link := func(from string) func(t *testing.T, s System, home string) {
		return func(t *testing.T, s System, home string) {
			at := filepath.Join(home, from)
			must(t, os.MkdirAll(filepath.Dir(at), 0o755))
			must(t, os.Symlink(s.path("secret"), at))
		}
	}
	for what, harm := range map[string]func(t *testing.T, s System, home string){
		".config leads out":       link(".config"),
		".config/docker":          link(".config/docker"),
		"certs.d":                 link(".config/docker/certs.d"),
		"the registry's":          link(".config/docker/certs.d/registry.test:5000"),
		"a file in the way":       func(t *testing.T, _ System, home string) { write(t, filepath.Join(home, ".config"), "x") },
		"a home that is closed":   func(t *testing.T, _ System, home string) { must(t, os.Chmod(home, 0)) },
		"a home nobody may write": func(t *testing.T, _ System, home string) { must(t, os.Chmod(home, 0o500)) },
	} {
		t.Run(what, func(t *testing.T) {
			s, home := alice(t)
			harm(t, s, home)
			theirs(t, home)
			secrets := tree(t, s.path("secret"))
			h, owned := installed(t, s, Auto)
			found := h.Read(plain(t), owned)
			if f := at(t, found, "docker")[0]; f.Problem != "" {
				t.Errorf("Docker's: %+v", f)
			}
			if f := at(t, found, "rootless:alice"); len(f) != 1 || f[0].Problem == "" || !f[0].Aside {
				t.Errorf("alice's: %+v", f)
			}
			if _, err := h.Remove(owned); err != nil {
				t.Errorf("removed: %v", err)
			}
			must(t, filepath.WalkDir(s.path("secret"), func(path string, e os.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := e.Info()
				if err == nil && info.Sys().(*syscall.Stat_t).Uid != 0 {
					t.Errorf("%s belongs to %d", path, info.Sys().(*syscall.Stat_t).Uid)
				}
				return err
			}))
			if now := tree(t, s.path("secret")); fmt.Sprint(now) != fmt.Sprint(secrets) {
				t.Errorf("the secret is %v, was %v", now, secrets)
			}
		})
	}
	t.Run("control: root would follow", func(t *testing.T) {
		s, home := alice(t)
		link(".config")(t, s, home)
		h := Host{Places: []Place{{Runtime: "rootless:alice", Dir: filepath.Join(home, ".config/docker/certs.d")}}} // no Home
		must(t, h.Apply(plain(t), h.Plan(plain(t), Owned{}), newPEM(t)))
		if _, err := os.Stat(s.path("secret/docker/certs.d/registry.test:5000/ca.crt")); err != nil {
			t.Error(err)
		}
	})
}

// TestHomeThatWaits: no pipe in a home keeps Read, Apply or Remove waiting, nor Docker's
// file from going.
func TestHomeThatWaits(t *testing.T) {
	pipe := func(t *testing.T, path string) {
		must(t, os.RemoveAll(path))
		must(t, syscall.Mkfifo(path, 0o644))
	}
	for what, at := range map[string]string{
		"certs.d": ".config/docker/certs.d", "the registry's": ".config/docker/certs.d/registry.test:5000",
		"ca.crt": ".config/docker/certs.d/registry.test:5000/ca.crt", "hosts.toml": ".config/docker/certs.d/registry.test:5000/hosts.toml",
	} {
		t.Run(what, func(t *testing.T) {
			s, home := alice(t)
			h, owned := installed(t, s, Auto)
			pipe(t, filepath.Join(home, at))
			theirs(t, home)
			begin := time.Now()
			found := alices(t, h, owned)
			if found.Problem == "" {
				t.Errorf("not seen: %+v", found)
			}
			must(t, h.Apply(plain(t), h.Plan(plain(t), owned), newPEM(t)))
			if _, err := h.Remove(owned); err != nil {
				t.Error(err)
			}
			if there(s.path(dockers + "ca.crt")) {
				t.Error("Docker's is still there")
			}
			if took := time.Since(begin); took > patience {
				t.Errorf("all that took %v", took)
			}
		})
	}
}

func alices(t *testing.T, h Host, owned Owned) Found {
	t.Helper()
	return at(t, h.Read(plain(t), owned), "rootless:alice")[0]
}

// TestPatience: what does not end in a home is left, and not begun again before it has.
func TestPatience(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user")
	}
	goOn, ended := make(chan struct{}), make(chan struct{})
	begin := time.Now()
	for range 3 {
		err := As(nobody, nobody, func() error { <-goOn; close(ended); return nil })
		if !errors.Is(err, ErrLate) {
			t.Errorf("waited: %v", err)
		}
	}
	if took := time.Since(begin); took > 2*patience {
		t.Errorf("all that took %v", took)
	}
	close(goOn)
	<-ended
	forgotten(t)
	must(t, As(nobody, nobody, func() error { return nil }))
}

// TestFullDirectory: nobody makes this process read without end.
func TestFullDirectory(t *testing.T) {
	s := machine(t, nil)
	h, owned := installed(t, s)
	for n := range foreign.MostEntries {
		write(t, s.path(dockers, fmt.Sprint(n)), "")
	}
	if f := h.Read(plain(t), owned)[0]; !strings.Contains(f.Problem, errTooMany.Error()) {
		t.Errorf("not seen: %+v", f)
	}
	must(t, os.Remove(s.path(dockers, "0")))
	if f := h.Read(plain(t), owned)[0]; f.Problem != "" {
		t.Errorf("control: %+v", f)
	}
}

// TestHomeOfWhom: after another user got a home, what is in it is that user's.
func TestHomeOfWhom(t *testing.T) {
	owned := Owned{Homes: []Home{{"/home/a", 1, 1}, {"/home/a/b", 2, 2}, {"/home/a", 3, 3}}}
	for path, want := range map[string]int{"/home/a/x": 2, "/home/a/b/x": 1, "/home/ab": -1} {
		if got := owned.home(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	s, home := alice(t)
	h, _ := installed(t, s, Auto)
	plan := h.Plan(plain(t), Owned{Homes: []Home{{home, 7, 7}}})
	if want := []Home{{home, nobody, nobody}}; !slices.Equal(plan.Homes, want) {
		t.Errorf("planned %v", plan.Homes)
	}
}
