package users

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/server/records"
)

// maxHtpasswd bounds an htpasswd that is read (bytes): ten thousand users have less.
const maxHtpasswd = 4 << 20

// Passed is a line of an htpasswd that makes no user.
type Passed struct {
	// Line counts from 1.
	Line int
	// Name on it, "" when there is none.
	Name string
	// Kind says what it has in place of a bcrypt hash; never the hash itself.
	Kind string
}

// Imported are the users of an htpasswd.
type Imported struct {
	Passed []Passed

	users []user // sorted by name
}

// ParseHtpasswd reads what a plain registry signs in with. Lines with a bcrypt hash
// are users, the last one of a name counts; comments and blank lines are nothing, and
// every other line is among Passed: a plain registry accepts none of them either.
func ParseHtpasswd(data []byte) (Imported, error) {
	if len(data) > maxHtpasswd {
		return Imported{}, fmt.Errorf("htpasswd has %d bytes; at most %d are read", len(data), maxHtpasswd)
	}
	var in Imported
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, found := strings.Cut(line, ":")
		if !found {
			in.Passed = append(in.Passed, Passed{Line: n, Kind: "no NAME:HASH"})
			continue
		}
		at, known := find(in.users, name)
		switch kind := kindOf(name, hash); {
		case kind != "":
			in.Passed = append(in.Passed, Passed{Line: n, Name: name, Kind: kind})
		case known:
			in.users[at].Hash = hash
		default:
			in.users = slices.Insert(in.users, at, user{name, hash})
		}
	}
	return in, nil
}

// kindOf says why a line makes no user, or "".
func kindOf(name, hash string) string {
	if CheckName(name) != nil {
		return "a name that cannot sign in"
	}
	for prefix, kind := range map[string]string{
		"$apr1$": "MD5 (apr1)", "$1$": "MD5", "{SHA}": "SHA-1", "$5$": "SHA-256 crypt", "$6$": "SHA-512 crypt", "$argon2": "argon2", "$y$": "yescrypt",
	} {
		if strings.HasPrefix(hash, prefix) {
			return kind
		}
	}
	switch {
	case hash == "":
		return "no hash"
	case len(hash) == cryptLength && !strings.HasPrefix(hash, "$"):
		return "crypt"
	case (user{name, hash}).check() == nil && len(hash) == bcryptLength && acceptable(hash):
		return ""
	case strings.HasPrefix(hash, "$2"):
		return "a damaged bcrypt hash"
	default:
		return "plain text or an unknown hash"
	}
}

// Lengths of hashes in characters.
const (
	cryptLength  = 13
	bcryptLength = 60
)

// acceptable: a variant of bcrypt that a plain registry accepts.
func acceptable(hash string) bool {
	return slices.ContainsFunc([]string{"$2a$", "$2b$", "$2y$"}, func(v string) bool { return strings.HasPrefix(hash, v) })
}

// Names returns the users' names, sorted.
func (in Imported) Names() []string {
	names := make([]string, len(in.users))
	for i, u := range in.users {
		names[i] = u.Name
	}
	return names
}

// With adds a user with a new password; a name that is there already is an error.
func (in Imported) With(name, password string) (Imported, error) {
	if err := Check(name, password); err != nil {
		return in, err
	}
	at, found := find(in.users, name)
	if found {
		return in, fmt.Errorf("user %q is in htpasswd already and keeps its password", name)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), defaultCost)
	if err != nil {
		return in, fmt.Errorf("hash the password of %s: %w", name, err)
	}
	in.users = slices.Insert(slices.Clone(in.users), at, user{name, string(hash)})
	return in, nil
}

// Create writes the users of a new registry, hashes as they are. The store must have
// none; nothing else is written.
func (in Imported) Create(store *records.Store) error {
	_, err := store.Put(recordName, 0, append([]user{}, in.users...))
	if errors.Is(err, records.ErrConflict) {
		return fmt.Errorf("import users: there are users already: %w", err)
	}
	return err
}
