package identity

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// Enrollment is a host's request to join.
type Enrollment struct {
	TokenID string
	Secret  []byte
	CSR     []byte
	Name    string
}

// Enroll makes a host, or returns the same one again for the same token and
// key. revoked is the ID of a host that it replaced, else "".
func (i *Identity) Enroll(e Enrollment, now time.Time) (host Host, identity []byte, revoked string, err error) {
	pub, key, err := requestedKey(e.CSR)
	if err != nil {
		return Host{}, nil, "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	t, err := i.redeemable(e.TokenID, e.Secret, key, now)
	if err != nil {
		return Host{}, nil, "", err
	}
	id, again := i.redeemedBy(t, key)
	if again {
		h, exists := i.hosts[id]
		switch {
		case exists && h.Removed:
			return Host{}, nil, "", ErrRemoved
		case exists && key != h.Current && key != h.Next:
			return Host{}, nil, "", fmt.Errorf("%w: host %s joined with it and has another key since; make a new one with `trustcast token create --host %s`", ErrToken, h.Name, h.Name)
		case exists:
			identity, err = i.issue(h, pub, now)
			return i.hosts[id].host(), identity, "", err
		case t.ended(now): // long ago: its host was removed and forgotten
			return Host{}, nil, "", fmt.Errorf("%w: it expired on %s, and the host that joined with it is gone; make a new one with `trustcast token create`", ErrToken, t.Expires.UTC().Format(time.RFC3339))
		}
	} else if id, err = newHostID(); err != nil {
		return Host{}, nil, "", err
	}
	name, err := i.freeName(e.Name, t)
	if err != nil {
		return Host{}, nil, "", err
	}
	if !again { // the token is spent before the host exists: a crash between costs a repetition
		if err := i.redeem(t, key, id); err != nil {
			return Host{}, nil, "", err
		}
	}
	if revoked, err = i.replace(t); err != nil {
		return Host{}, nil, "", err
	}
	h := hostRecord{ID: id, Name: name, Current: key, Enrolled: now.UTC()}
	identity, err = i.issue(h, pub, now)
	return i.hosts[id].host(), identity, revoked, err
}

// freeName is the token's name if it has one, else the wanted one if nobody
// has it.
func (i *Identity) freeName(wanted string, t tokenRecord) (string, error) {
	if t.Host != "" {
		return t.Host, nil
	}
	if err := CheckHostName(wanted); err != nil {
		return "", err
	}
	if _, taken := i.names[wanted]; taken {
		return "", fmt.Errorf("host name %q: %w: give another one with --name, or if this is that machine, set up anew, use a token made by `trustcast token create --host %s`", wanted, ErrTaken, wanted)
	}
	return wanted, nil
}

// CheckHostName says what is wrong with a host name, or nil.
func CheckHostName(name string) error {
	if !hostNames.MatchString(name) {
		return fmt.Errorf("%w: host name %.80q: use 1 to 63 of a-z, 0-9, dot and dash; --name gives one", ErrInvalid, name)
	}
	return nil
}

// replace revokes the host that a token for a name replaces.
func (i *Identity) replace(t tokenRecord) (revoked string, err error) {
	id, ok := i.names[t.Host]
	if t.Host == "" || !ok {
		return "", nil
	}
	if err := i.lockOut(); err != nil {
		return "", err
	}
	h := i.hosts[id]
	h.Removed = true
	return id, i.put(h)
}

func newHostID() (string, error) {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make host ID: %w", err)
	}
	return hex.EncodeToString(raw), nil
}
