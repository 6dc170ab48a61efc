package users

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/server/records"
)

// place is a data directory with its store.
type place struct {
	store  *records.Store
	export string
}

func newPlace(t *testing.T) place {
	t.Helper()
	store, err := records.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return place{store, filepath.Join(t.TempDir(), "auth", "htpasswd")}
}

func (p place) open(t *testing.T) *Users {
	t.Helper()
	u, err := Open(p.store, p.export)
	if err != nil {
		t.Fatal(err)
	}
	u.Cost = bcrypt.MinCost
	return u
}

func (p place) exported(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(p.export)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, u *Users, name, password string) (replaced bool) {
	t.Helper()
	replaced, err := u.Add(name, password)
	must(t, err)
	return replaced
}

func TestAddReplaceRemove(t *testing.T) {
	p := newPlace(t)
	u := p.open(t)
	if add(t, u, "zoe", "secret") || add(t, u, "ann", "other") {
		t.Error("a new user counts as replaced")
	}
	if got := u.Names(); !cmp.Equal(got, []string{"ann", "zoe"}) {
		t.Errorf("names are %v", got)
	}
	before, _ := u.Hash("zoe")
	if !add(t, u, "zoe", "changed") {
		t.Error("a new password does not count as replaced")
	}
	after, ok := u.Hash("zoe")
	if !ok || string(before) == string(after) {
		t.Error("the new password did not change the hash")
	}
	must(t, bcrypt.CompareHashAndPassword(after, []byte("changed")))
	if got := p.exported(t); got != string(u.Htpasswd()) || !strings.HasPrefix(got, "ann:$2a$04$") || strings.Count(got, "\n") != 2 {
		t.Errorf("the derived copy is %q", got)
	}
	must(t, u.Remove("ann"))
	if _, ok := u.Hash("ann"); ok {
		t.Error("a removed user still has a hash")
	}
	if strings.Contains(p.exported(t), "ann") {
		t.Error("a removed user is still in the derived copy")
	}
	if err := u.Remove("ann"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "trustcast user ls") {
		t.Errorf("removing nobody: %v", err)
	}
}

func TestRecordIsTheOnlyTruth(t *testing.T) {
	p := newPlace(t)
	add(t, p.open(t), "ann", "secret")
	must(t, os.WriteFile(p.export, []byte("mallory:$2a$04$forged\n"), 0o644))
	u := p.open(t)
	if got := u.Names(); !cmp.Equal(got, []string{"ann"}) {
		t.Errorf("names are %v", got)
	}
	if strings.Contains(p.exported(t), "mallory") {
		t.Error("the copy was not derived again")
	}
	info, err := os.Stat(p.export)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the copy has mode %v", info.Mode())
	}
}

func TestNobodyIsAnEmptyFile(t *testing.T) {
	p := newPlace(t)
	u := p.open(t)
	if len(u.Names()) != 0 || len(u.Htpasswd()) != 0 || p.exported(t) != "" {
		t.Error("users out of nothing")
	}
}

// Two servers on one store, as with shared records: neither loses the other's
// user.
func TestConcurrentChanges(t *testing.T) {
	p := newPlace(t)
	a, b := p.open(t), p.open(t)
	var all sync.WaitGroup
	for i, name := range []string{"u0", "u1", "u2", "u3", "u4", "u5"} {
		all.Go(func() {
			if _, err := []*Users{a, b}[i%2].Add(name, "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := p.open(t).Names(); len(got) != 6 {
		t.Errorf("of six users only %v are there", got)
	}
}

func TestDamagedRecords(t *testing.T) {
	for name, value := range map[string]any{
		"no hash":    []user{{"ann", "plain"}},
		"twice":      []user{{"ann", string(dummyHash(4))}, {"ann", string(dummyHash(4))}},
		"bad name":   []user{{"a:b", string(dummyHash(4))}},
		"more known": []map[string]string{{"name": "ann", "hash": string(dummyHash(4)), "role": "admin"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			_, err := p.store.Put(recordName, 0, value)
			must(t, err)
			if _, err := Open(p.store, p.export); err == nil {
				t.Error("opened")
			}
		})
	}
}

func TestDummyHashCostsAsMuchAsTheDearest(t *testing.T) {
	p := newPlace(t)
	u := p.open(t)
	for _, step := range []struct {
		do   func()
		want int
	}{
		{func() {}, defaultCost},
		{func() { add(t, u, "cheap", "secret") }, 4},
		{func() { u.Cost = 6; add(t, u, "dear", "secret") }, 6},
		{func() { must(t, u.Remove("dear")) }, 4},
	} {
		step.do()
		if got, err := bcrypt.Cost(u.DummyHash()); err != nil || got != step.want {
			t.Errorf("cost %d (%v), want %d", got, err, step.want)
		}
	}
	// It must go the whole way of a comparison, not fail early as malformed.
	if err := bcrypt.CompareHashAndPassword(u.DummyHash(), []byte("secret")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("comparing with it: %v", err)
	}
}

func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 73)
	for _, c := range []struct{ name, password, want string }{
		{"", "secret", "user name is empty"},
		{"a:b", "secret", "colon"},
		{"a b", "secret", "white space"},
		{"a\tb", "secret", "white space"},
		{"a\u00a0b", "secret", "white space"},
		{"a\x00", "secret", "control"},
		{"a\u202eb", "secret", "control"},
		{"\xff", "secret", "UTF-8"},
		{"#ann", "secret", "comment"},
		{long, "secret", "at most 64"},
		{"ann", "", "empty"},
		{"ann", long, "shorter"},
		{"ann", "secret", ""},
		{"jörg@example.com", long[:72], ""},
		{strings.Repeat("ö", 64), "x", ""},
	} {
		err := Check(c.name, c.password)
		if c.want == "" {
			must(t, err)
			continue
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Check(%q, %q) = %v, want %q", c.name, c.password, err, c.want)
		}
		if len(c.password) > 72 && strings.Contains(err.Error(), c.password) {
			t.Error("the error repeats the password")
		}
	}
	p := newPlace(t)
	u := p.open(t)
	if _, err := u.Add("a:b", "secret"); !errors.Is(err, ErrInvalid) || len(u.Names()) != 0 {
		t.Errorf("Add took a bad name: %v", err)
	}
}

func TestGenerate(t *testing.T) {
	a, b := Generate(), Generate()
	if a == b || len(a) < 26 || strings.Trim(a, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("generated %q and %q", a, b)
	}
	must(t, Check("ann", a))
}

// When the copy cannot be written, the change counts and the error says so.
func TestCopyCannotBeWritten(t *testing.T) {
	p := newPlace(t)
	u := p.open(t)
	must(t, os.Remove(p.export))
	must(t, os.Mkdir(p.export, 0o700)) // nothing can be renamed over it
	_, err := u.Add("ann", "secret")
	if err == nil || !strings.Contains(err.Error(), "recorded and count") {
		t.Errorf("error %v", err)
	}
	if _, ok := u.Hash("ann"); !ok {
		t.Error("the record names ann, sign-in does not")
	}
	again, err := Open(p.store, p.export)
	if !errors.Is(err, ErrCopy) {
		t.Fatalf("opened again: %v", err)
	}
	if _, ok := again.Hash("ann"); !ok {
		t.Error("opened again, nobody signs in")
	}
}
