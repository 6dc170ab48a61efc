package identity

import (
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

const (
	tokenPrefix = "tokens/"
	// defaultExpiry is enough to deploy a fleet in a working day.
	defaultExpiry = 24 * time.Hour
	// maxTokens bounds what an operator's script can leave behind; ended ones
	// are dropped first.
	maxTokens = 1000
	// keepEnded is how long an ended token stays in the list.
	keepEnded = 30 * 24 * time.Hour
)

// tokenRecord is what the server keeps of a token; the secret only as a hash.
type tokenRecord struct {
	ID      string    `json:"id"`
	Secret  string    `json:"secret_sha256"`
	Created time.Time `json:"created"`
	// Expires is zero for never.
	Expires time.Time `json:"expires"`
	// Uses is how many hosts may join with it; 0: no limit.
	Uses int `json:"uses"`
	// Host binds it to one name.
	Host    string `json:"host,omitempty"`
	Revoked bool   `json:"revoked"`
	// Redeemed maps key hashes to host IDs in records of before each had one of
	// its own: see redemption.
	Redeemed map[string]string `json:"redeemed,omitempty"`
}

// Token describes a token without its secret.
type Token struct {
	ID               string
	Created, Expires time.Time
	Uses, Used       int
	Host             string
	// State is "valid", "expired", "used up" or "revoked".
	State string
}

// TokenOptions of a new token.
type TokenOptions struct {
	// Expires after this; 0: 24 hours; negative: never.
	Expires time.Duration
	// Uses is how many hosts may join; 0: no limit.
	Uses int
	// Host binds it to this name and one use, and replaces the host of that
	// name.
	Host string
}

func (t tokenRecord) state(now time.Time, used int) string {
	switch {
	case t.Revoked:
		return "revoked"
	case t.ended(now):
		return "expired"
	case t.Uses > 0 && used >= t.Uses:
		return "used up"
	}
	return "valid"
}

func (t tokenRecord) ended(now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires)
}

// CreateToken makes a join token; its secret exists only in what is returned.
func (i *Identity) CreateToken(o TokenOptions, now time.Time) (certs.Token, Token, error) {
	if o.Uses < 0 {
		return certs.Token{}, Token{}, fmt.Errorf("%w: --uses %d: give 1 or more, or leave it out for no limit", ErrInvalid, o.Uses)
	}
	if o.Host != "" {
		if err := CheckHostName(o.Host); err != nil {
			return certs.Token{}, Token{}, err
		}
		o.Uses = 1
	}
	if o.Expires == 0 {
		o.Expires = defaultExpiry
	}
	secret, err := certs.NewToken(i.Pin())
	if err != nil {
		return certs.Token{}, Token{}, err
	}
	t := tokenRecord{ID: secret.ID, Secret: certs.SecretHash(secret.Secret), Created: now.UTC(), Uses: o.Uses, Host: o.Host}
	if o.Expires > 0 {
		t.Expires = now.Add(o.Expires).UTC()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.dropEnded(now); err != nil {
		return certs.Token{}, Token{}, err
	}
	if _, err := i.cfg.Records.Put(tokenPrefix+t.ID, 0, t); err != nil {
		return certs.Token{}, Token{}, fmt.Errorf("create token: %w", err)
	}
	return secret, i.describe(t, now), nil
}

// describe is for people. The caller holds mu.
func (i *Identity) describe(t tokenRecord, now time.Time) Token {
	used := i.used(t)
	return Token{ID: t.ID, Created: t.Created, Expires: t.Expires, Uses: t.Uses, Used: used, Host: t.Host, State: t.state(now, used)}
}

// dropEnded removes tokens that ended long ago, and refuses beyond the bound.
func (i *Identity) dropEnded(now time.Time) error {
	names := i.cfg.Records.List(tokenPrefix)
	left := len(names)
	for _, name := range names {
		var t tokenRecord
		rev, err := i.cfg.Records.Get(name, &t)
		if err != nil {
			return err
		}
		old := t.Created.Add(keepEnded).Before(now)
		if t.state(now, i.used(t)) != "valid" && (old || len(names) >= maxTokens) {
			if err := i.dropToken(t, rev); err != nil {
				return err
			}
			left--
		}
	}
	if left >= maxTokens {
		return fmt.Errorf("%w: there are %d valid join tokens; remove some with `trustcast token rm`", ErrInvalid, left)
	}
	return nil
}

// dropToken removes a token, and then who joined with it: without it that means
// nothing, and what a crash leaves is removed at the next start. The caller holds mu.
func (i *Identity) dropToken(t tokenRecord, rev uint64) error {
	if err := i.cfg.Records.Delete(tokenPrefix+t.ID, rev); err != nil {
		return err
	}
	return i.dropRedeemed(t.ID)
}

// Tokens lists all tokens, the newest first.
func (i *Identity) Tokens(now time.Time) ([]Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []Token
	for _, name := range i.cfg.Records.List(tokenPrefix) {
		var t tokenRecord
		if _, err := i.cfg.Records.Get(name, &t); err != nil {
			return nil, fmt.Errorf("list tokens: %w", err)
		}
		out = append(out, i.describe(t, now))
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Created.After(out[b].Created) })
	return out, nil
}

// RevokeToken ends a token; hosts that joined with it stay.
func (i *Identity) RevokeToken(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var t tokenRecord
	rev, err := i.cfg.Records.Get(tokenPrefix+id, &t)
	if errors.Is(err, records.ErrNotFound) {
		return fmt.Errorf("token %q: %w; `trustcast token ls` lists them", id, ErrNotFound)
	}
	if err != nil {
		return err
	}
	t.Revoked = true
	if _, err := i.cfg.Records.Put(tokenPrefix+id, rev, t); err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	return nil
}

// RevokeTokens ends all tokens, also for those who joined with one and would repeat
// that, and returns how many were valid. Hosts that joined with one stay.
func (i *Identity) RevokeTokens() (n int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	for _, name := range i.cfg.Records.List(tokenPrefix) {
		var t tokenRecord
		rev, err := i.cfg.Records.Get(name, &t)
		if err != nil {
			return n, fmt.Errorf("revoke tokens: %w", err)
		}
		if t.Revoked {
			continue
		}
		valid := t.state(now, i.used(t)) == "valid"
		t.Revoked = true
		if _, err := i.cfg.Records.Put(name, rev, t); err != nil {
			return n, fmt.Errorf("revoke tokens: %w", err)
		}
		if valid {
			n++
		}
	}
	return n, nil
}

// redeemable checks a presented token. Unknown ID and wrong secret read alike.
// A key that redeemed it before may repeat itself although it is used up or
// expired. The caller holds mu.
func (i *Identity) redeemable(id string, secret []byte, key string, now time.Time) (tokenRecord, error) {
	var t tokenRecord
	_, err := i.cfg.Records.Get(tokenPrefix+id, &t)
	if err != nil && !errors.Is(err, records.ErrNotFound) {
		return tokenRecord{}, err
	}
	matches := certs.SecretMatches(secret, t.Secret) // also against "" for an unknown ID
	if err != nil || !matches {
		return tokenRecord{}, fmt.Errorf("%w: it is not known here; make one with `trustcast token create` on this server", ErrToken)
	}
	used := i.used(t)
	state := t.state(now, used)
	if _, again := i.redeemedBy(t, key); again && !t.Revoked {
		state = "valid"
	}
	switch state {
	case "valid":
		return t, nil
	case "expired":
		return tokenRecord{}, fmt.Errorf("%w: it expired on %s; make a new one with `trustcast token create`", ErrToken, t.Expires.UTC().Format(time.RFC3339))
	case "used up":
		return tokenRecord{}, fmt.Errorf("%w: it is used up (%d of %d); make a new one with `trustcast token create`", ErrToken, used, t.Uses)
	default:
		return tokenRecord{}, fmt.Errorf("%w: it was revoked; make a new one with `trustcast token create`", ErrToken)
	}
}
