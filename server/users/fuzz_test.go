package users

import (
	"bufio"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/server/records"
)

// FuzzAdd makes a user beside another one. Whatever the name, the exported copy
// has exactly these two, as another registry would read it.
func FuzzAdd(f *testing.F) {
	for _, name := range []string{"ci", "a:b", "a\nroot", "a\r", "#a", " a", "a\u2028b", "\u0085", "a\x00", "é", "ci@example.com", strings.Repeat("ü", maxName), "\xff", "bob"} {
		f.Add(name, "secret")
	}
	f.Add("ci", "")
	f.Add("ci", strings.Repeat("p", maxPassword))
	f.Add("ci", "a\x00a") // refused: bcrypt would take others for it
	f.Add("ci", "\xff\n:")
	dir := f.TempDir()
	store, err := records.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	u, err := Open(store, dir+"/auth/htpasswd")
	if err != nil {
		f.Fatal(err)
	}
	u.Cost = bcrypt.MinCost
	if _, err := u.Add("bob", "other"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, password string) {
		if name == "bob" {
			return
		}
		if _, err := u.Add(name, password); err != nil {
			// The same is said about any password of this length, or about any with a zero.
			if strings.ContainsRune(password, 0) {
				return
			}
			if other := Check(name, strings.Repeat("p", len(password))); !errors.Is(err, ErrInvalid) || other == nil || other.Error() != err.Error() {
				t.Errorf("add %q: %v", name, err)
			}
			return
		}
		defer func() { must(t, u.Remove(name)) }()
		copied := readHtpasswd(t, u.Htpasswd())
		if len(copied) != 2 || copied[name] == "" || copied["bob"] == "" || !slices.Equal(u.Names(), sorted("bob", name)) {
			t.Fatalf("user %q: the copy reads %q", name, copied)
		}
		if strings.ContainsRune(password, 0) {
			t.Error("a password with a zero is taken: others open as well")
		}
		hash := []byte(copied[name])
		if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil {
			t.Errorf("the password does not open: %v", err)
		}
		if len(password) < maxPassword && bcrypt.CompareHashAndPassword(hash, []byte(password+"x")) == nil {
			t.Error("another password opens")
		}
		reopened, err := records.Open(dir)
		must(t, err)
		var kept []user
		if _, err := reopened.Get(recordName, &kept); err != nil || len(kept) != 2 {
			t.Errorf("the record is read as %v (%v)", kept, err)
		}
	})
}

// readHtpasswd reads as the registry does: it trims lines, and skips empty ones
// and comments.
func readHtpasswd(t *testing.T, data []byte) map[string]string {
	out := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if _, twice := out[name]; !ok || twice {
			t.Errorf("line %q", line)
		}
		out[name] = hash
	}
	return out
}

func sorted(names ...string) []string {
	slices.Sort(names)
	return names
}
