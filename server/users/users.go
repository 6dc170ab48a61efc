// Package users is who may sign in to the registry: names and bcrypt hashes.
//
// The record "users" is the only truth, changed by compare-and-swap. After each
// change, and when it is opened, a copy is derived in htpasswd's format, so that
// a plain registry could take the data over as it is; nothing reads that copy
// back. Passwords are never kept, and whether one is right is decided elsewhere.
package users

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/server/records"
)

const (
	recordName = "users"

	// defaultCost is bcrypt's own default: about 60 ms a password, paid once
	// per sign-in, since the edge remembers good ones.
	defaultCost = bcrypt.DefaultCost

	// exportPerm: hashes are no public matter.
	exportPerm = 0o600
)

// ErrNotFound says that no user has this name.
var ErrNotFound = errors.New("no such user: `trustcast user ls` shows those there are")

// Users is the list of users. Its methods are safe for concurrent use.
type Users struct {
	// Cost of bcrypt for passwords set from now on, 4 to 31. Default 10. Set it
	// before the first Add.
	Cost int

	store  *records.Store
	export string // path of the derived copy

	mu      sync.Mutex            // one change at a time
	current atomic.Pointer[table] // what the record says; read on every request
}

// user is one entry of the record.
type user struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

// table is the record in the shape in which it is asked; immutable.
type table struct {
	users  []user // sorted by name
	hashes map[string][]byte
	dummy  []byte
}

// ErrCopy says that all is as it should be but for the copy, which cannot be written:
// on a full disk, say.
var ErrCopy = errors.New("the users are recorded and count, but their copy for other programs is old; it is written again at the next change or start")

// Open reads the users from the store and derives the copy at exportPath
// (0600), whose directory is made (0700) if needed. No record means no users. With
// ErrCopy the users are there, too.
func Open(store *records.Store, exportPath string) (*Users, error) {
	u := &Users{store: store, export: exportPath}
	users, _, err := u.read()
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(exportPath)
	if err := durable.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	if err := durable.Strays(filepath.Clean(dir), name); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	return u, u.publish(users)
}

// Add makes a user, or gives one that exists a new password (replaced). It
// counts from the next request on; see Check for what is refused.
func (u *Users) Add(name, password string) (replaced bool, err error) {
	if err := Check(name, password); err != nil {
		return false, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cmp.Or(u.Cost, defaultCost))
	if err != nil {
		return false, fmt.Errorf("hash the password of %s: %w", name, err)
	}
	err = u.change(func(users []user) ([]user, error) {
		at, found := find(users, name)
		if replaced = found; found {
			users[at].Hash = string(hash)
			return users, nil
		}
		return slices.Insert(users, at, user{name, string(hash)}), nil
	})
	if err != nil {
		return false, fmt.Errorf("add user %s: %w", name, err)
	}
	return replaced, nil
}

// Remove takes a user away; the next request with its password is refused. What
// is in flight is not cut. A name that is not there is ErrNotFound.
func (u *Users) Remove(name string) error {
	err := u.change(func(users []user) ([]user, error) {
		at, found := find(users, name)
		if !found {
			return nil, ErrNotFound
		}
		return slices.Delete(users, at, at+1), nil
	})
	if err != nil {
		return fmt.Errorf("remove user %s: %w", name, err)
	}
	return nil
}

// Names returns the users' names, sorted.
func (u *Users) Names() []string {
	t := u.current.Load()
	names := make([]string, len(t.users))
	for i, user := range t.users {
		names[i] = user.Name
	}
	return names
}

// Htpasswd returns the users in htpasswd's format, sorted by name. Without users
// it is empty, which lets nobody in.
func (u *Users) Htpasswd() []byte { return u.current.Load().htpasswd() }

// Hash returns the bcrypt hash of a user. It takes no lock: every request asks.
// The caller must not change the bytes.
func (u *Users) Hash(name string) (hash []byte, ok bool) {
	hash, ok = u.current.Load().hashes[name]
	return hash, ok
}

// DummyHash returns a hash that no password has, of the highest cost in use, for
// checking unknown users: they then take as long to refuse as known ones.
func (u *Users) DummyHash() []byte { return u.current.Load().dummy }

// change decides on the newest record, writes it, and decides again when
// somebody else wrote meanwhile. Record first, then what derives from it.
func (u *Users) change(decide func([]user) ([]user, error)) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		users, rev, err := u.read()
		if err != nil {
			return err
		}
		if users, err = decide(users); err != nil {
			return err
		}
		switch _, err = u.store.Put(recordName, rev, users); {
		case errors.Is(err, records.ErrConflict):
			continue
		case err != nil:
			return err
		}
		return u.publish(users)
	}
}

// NamesIn returns the names of the users in a copy of the records, sorted.
func NamesIn(s records.Snapshot) ([]string, error) {
	users, _, err := readFrom(s.Get)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(users))
	for i, user := range users {
		names[i] = user.Name
	}
	return names, nil
}

// read returns the users of the record, sorted and checked, and its revision.
func (u *Users) read() ([]user, uint64, error) { return readFrom(u.store.Get) }

func readFrom(get func(name string, value any) (uint64, error)) ([]user, uint64, error) {
	var users []user
	rev, err := get(recordName, &users)
	if errors.Is(err, records.ErrNotFound) {
		return []user{}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(users, func(a, b user) int { return cmp.Compare(a.Name, b.Name) })
	for i, user := range users {
		if err := user.check(); err != nil {
			return nil, 0, fmt.Errorf("record %s: %w: restore it from a backup", recordName, err)
		}
		if i > 0 && users[i-1].Name == user.Name {
			return nil, 0, fmt.Errorf("record %s names user %q twice: restore it from a backup", recordName, user.Name)
		}
	}
	return users, rev, nil
}

func (e user) check() error {
	if err := CheckName(e.Name); err != nil {
		return err
	}
	if _, err := bcrypt.Cost([]byte(e.Hash)); err != nil {
		return fmt.Errorf("user %q has no bcrypt hash (%w)", e.Name, err)
	}
	return nil
}

// publish makes users the ones that sign in, then derives the copy.
func (u *Users) publish(users []user) error {
	t := &table{users: users, hashes: make(map[string][]byte, len(users))}
	highest := 0
	for _, user := range users {
		t.hashes[user.Name] = []byte(user.Hash)
		if c, err := bcrypt.Cost([]byte(user.Hash)); err == nil { // read checked it
			highest = max(highest, c)
		}
	}
	t.dummy = dummyHash(cmp.Or(highest, u.Cost, defaultCost))
	u.current.Store(t)
	if err := durable.WriteFile(u.export, t.htpasswd(), exportPerm); err != nil {
		return fmt.Errorf("%w: %w", ErrCopy, err)
	}
	return nil
}

func (t *table) htpasswd() []byte {
	var out bytes.Buffer
	for _, user := range t.users {
		fmt.Fprintf(&out, "%s:%s\n", user.Name, user.Hash)
	}
	return out.Bytes()
}

func find(users []user, name string) (at int, found bool) {
	return slices.BinarySearchFunc(users, name, func(e user, name string) int { return cmp.Compare(e.Name, name) })
}
