package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/foreign"
)

// TestLinksInHomes: no advice makes root follow a user's link, and all is looked at with
// the user's rights.
func TestLinksInHomes(t *testing.T) {
	s := newSite(t)
	home := filepath.Join(s.Root, "home/evil")
	dir := filepath.Join(home, ".config/docker/certs.d", s.name.String())
	must(t, os.MkdirAll(dir, 0o755))
	secret := filepath.Join(s.Root, "secret")
	must(t, os.WriteFile(secret, nil, 0o600))
	must(t, os.Symlink(secret, filepath.Join(dir, "x.crt")))
	s.Places = []Place{{Runtime: "rootless:evil", Dir: filepath.Dir(dir), Home: home, UID: 4242, GID: 4242}}
	asked := 0
	s.As = func(uid, _ int, do func() error) error {
		if uid == 4242 {
			asked++
		}
		return do()
	}
	f := s.examine()
	for _, c := range f {
		if strings.HasPrefix(c.Fix, "chmod") || strings.Contains(c.Fix, "chown") || strings.HasPrefix(c.Fix, "rm") {
			t.Errorf("root is told: %s", c.Fix)
		}
	}
	if !strings.Contains(f.String(), "as evil, not as root: rm ") || asked == 0 {
		t.Errorf("asked for the user's rights %d times:\n%v", asked, f)
	}
	s.As = func(int, int, func() error) error { return errors.New("away") }
	if f := s.examine(); !f.has("files.unseen", Warn, "away") {
		t.Errorf("nothing says that it was not seen:\n%v", f)
	}
}

// TestNamesAreShownAsText: what a file is called forges no line.
func TestNamesAreShownAsText(t *testing.T) {
	s := newSite(t)
	must(t, os.Mkdir(filepath.Join(s.dir(), "a\n\x1b[2Jok'.crt"), 0o755))
	f := s.examine()
	if !f.has("files.folder", Fail, "is a directory") {
		t.Errorf("not seen:\n%v", f)
	}
	for _, c := range f {
		if strings.ContainsAny(c.Subject+c.Text+c.Fix, "\n\x1b") {
			t.Errorf("%q", c)
		}
	}
	if got, want := quote("a\n'"), `$'a\x0a\x27'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestCrowdedHome: whatever a user piles up, it is looked at within bounds, and root's
// reading is short.
func TestCrowdedHome(t *testing.T) {
	s := newSite(t)
	home := filepath.Join(s.Root, "home/evil")
	dir := filepath.Join(home, ".config/docker/certs.d", s.name.String())
	builders := filepath.Join(home, ".docker/buildx/instances")
	for _, d := range []string{dir, builders} {
		must(t, os.MkdirAll(d, 0o755))
	}
	for i := range 2 * foreign.MostEntries {
		must(t, os.Symlink("nothing", filepath.Join(dir, fmt.Sprintf("%d.crt", i))))
		must(t, os.WriteFile(filepath.Join(builders, fmt.Sprint(i)), fmt.Appendf(nil, `{"Name":"b%d","Driver":"docker-container"}`, i), 0o600))
		must(t, os.Chtimes(filepath.Join(builders, fmt.Sprint(i)), time.Time{}, time.Unix(1, 0)))
	}
	s.Places = append(s.Places, Place{Runtime: "rootless:evil", Dir: filepath.Dir(dir), Home: home, UID: 4242, GID: 4242})
	if os.Geteuid() == 0 {
		must(t, os.Chown(home, 4242, 4242))
	}
	f := s.examine()
	inDir, inBuilders := 0, 0
	for _, c := range f {
		switch {
		case strings.HasPrefix(c.Subject, dir):
			inDir++
		case strings.HasPrefix(c.Subject, builders):
			inBuilders++
			if !strings.HasPrefix(c.Fix, "as evil, not as root: ") && os.Geteuid() == 0 {
				t.Errorf("root is told: %s", c.Fix)
			}
		}
	}
	if inDir == 0 || inDir > mostInHome || inBuilders == 0 || inBuilders > foreign.MostEntries || os.Geteuid() == 0 && inBuilders > mostInHome {
		t.Errorf("%d findings of certificates, %d of builders", inDir, inBuilders)
	}
	if !f.has("files.unseen", Fail, "other things were found") {
		t.Error("nothing says that there is more")
	}
}

// TestManyCertificates: links to one large file do not fill the memory.
func TestManyCertificates(t *testing.T) {
	s := newSite(t)
	large := filepath.Join(s.dir(), "large.crt")
	must(t, os.WriteFile(large, bytes.Repeat([]byte(" "), foreign.Largest), 0o644))
	for i := range 100 {
		must(t, os.Link(large, filepath.Join(s.dir(), fmt.Sprintf("%d.crt", i))))
	}
	c := runtime{}.read(s.dir())
	if !c.many || c.size > mostBytes+foreign.Largest {
		t.Errorf("%d bytes were read, and that is all: %v", c.size, !c.many)
	}
}

// TestLinkedHome: a home that is reached by root's link is looked at with its user's
// rights all the same.
func TestLinkedHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make another's home")
	}
	s := newSite(t)
	real := filepath.Join(s.Root, "data/evil")
	must(t, os.MkdirAll(filepath.Join(real, ".docker/buildx/instances"), 0o755))
	must(t, os.Chown(real, 4242, 4242))
	must(t, os.MkdirAll(filepath.Join(s.Root, "home"), 0o755))
	must(t, os.Symlink(real, filepath.Join(s.Root, "home/evil")))
	asked := false
	s.As = func(uid, _ int, do func() error) error { asked = asked || uid == 4242; return do() }
	s.examine()
	if !asked {
		t.Error("it was looked at as root")
	}
}

// TestEndlessAnswer: who answers cannot fill the memory with a head that does not end.
func TestEndlessAnswer(t *testing.T) {
	for what, ask := range map[string]func(*exam, net.Conn){
		"registry": func(e *exam, conn net.Conn) { e.ping(conn, certs.Name{Host: "r", Port: 1}, time.Now()) },
		"proxy": func(_ *exam, conn net.Conn) {
			if err := tunnel(t.Context(), conn, "r:1", &url.URL{}); err == nil {
				t.Error("the tunnel is there")
			}
		},
	} {
		ours, theirs := net.Pipe()
		written := make(chan int, 1)
		go func() {
			line := []byte("X-More: " + strings.Repeat("x", 1000) + "\r\n")
			_, _ = theirs.Read(make([]byte, 4096)) // what is asked
			_, _ = theirs.Write([]byte("HTTP/1.1 200 OK\r\n"))
			n := 0
			for n < 16*largestHead {
				m, err := theirs.Write(line)
				n += m
				if err != nil {
					break
				}
			}
			written <- n
			_ = theirs.Close()
		}()
		ask(&exam{Config: Config{}.withDefaults()}, ours)
		must(t, ours.Close())
		if n := <-written; n < largestHead/2 || n > 2*largestHead {
			t.Errorf("%s: %d bytes were read", what, n)
		}
	}
}

// TestDateInHome: who dates a file in the own home into the future makes nobody else's
// builder look old.
func TestDateInHome(t *testing.T) {
	s := newSite(t)
	made := func(home string) {
		dir := filepath.Join(home, ".docker/buildx/instances")
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "b"), []byte(`{"Name":"b","Driver":"docker-container"}`), 0o600))
	}
	evil, good := filepath.Join(s.Root, "home/evil"), filepath.Join(s.Root, "home/good")
	made(evil)
	made(good)
	dir := filepath.Join(evil, ".config/docker/certs.d", s.name.String())
	must(t, os.MkdirAll(dir, 0o755))
	ours := filepath.Join(dir, "ca.crt")
	must(t, os.WriteFile(ours, nil, 0o600))
	must(t, os.Chtimes(ours, time.Time{}, time.Now().Add(time.Hour)))
	s.Places = append(s.Places, Place{Runtime: "rootless:evil", Dir: filepath.Dir(dir), Home: evil, UID: os.Geteuid()})
	s.Registry.Files = append(s.Registry.Files, ours)
	var old []string
	for _, c := range s.examine() {
		if c.ID == "restart.buildx" {
			old = append(old, c.Subject)
		}
	}
	if len(old) != 1 || !strings.HasPrefix(old[0], evil) {
		t.Errorf("older than what is installed: %v", old)
	}
}
