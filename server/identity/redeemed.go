package identity

import (
	"fmt"
	"strings"
)

const redeemedPrefix = "redeemed/"

// redemption is the record of one host that joined with a token, so that a repeated
// request gets the same answer. Were they in the token's record, each join would
// write all of them anew.
type redemption struct {
	Host string `json:"host"` // its ID
}

// redeemed are the host IDs of a token's redemptions, by the hash of their key.
type redeemed map[string]string

func redemptionName(token, key string) string { return redeemedPrefix + token + "-" + key }

// redemptionOf is the reverse; false: it is another record.
func redemptionOf(name string) (token, key string, ok bool) {
	if name, ok = strings.CutPrefix(name, redeemedPrefix); !ok {
		return "", "", false
	}
	return strings.Cut(name, "-")
}

// loadRedeemed reads the redemptions of all tokens, and removes those whose token is
// gone: a crash came between the two.
func (i *Identity) loadRedeemed() error {
	tokens := map[string]bool{}
	for _, name := range i.cfg.Records.List(tokenPrefix) {
		tokens[strings.TrimPrefix(name, tokenPrefix)] = true
	}
	for _, name := range i.cfg.Records.List(redeemedPrefix) {
		var r redemption
		if _, err := i.cfg.Records.Get(name, &r); err != nil {
			return fmt.Errorf("open tokens: %w", err)
		}
		if token, key, ok := redemptionOf(name); ok {
			i.noteRedeemed(token, key, r.Host)
		}
	}
	for token := range i.redeemed {
		if tokens[token] {
			continue
		}
		if err := i.dropRedeemed(token); err != nil {
			return fmt.Errorf("open tokens: %w", err)
		}
	}
	return nil
}

func (i *Identity) noteRedeemed(token, key, host string) {
	if i.redeemed[token] == nil {
		i.redeemed[token] = redeemed{}
	}
	i.redeemed[token][key] = host
}

// used is how many hosts joined with a token. The caller holds mu.
func (i *Identity) used(t tokenRecord) int { return len(t.Redeemed) + len(i.redeemed[t.ID]) }

// redeemedBy is the ID of the host that joined with a token and a key. The caller
// holds mu.
func (i *Identity) redeemedBy(t tokenRecord, key string) (id string, ok bool) {
	if id, ok = i.redeemed[t.ID][key]; !ok {
		id, ok = t.Redeemed[key]
	}
	return id, ok
}

// redeem writes down that key joined as host id. The caller holds mu.
func (i *Identity) redeem(t tokenRecord, key, id string) error {
	if _, err := i.cfg.Records.Put(redemptionName(t.ID, key), 0, redemption{Host: id}); err != nil {
		return fmt.Errorf("redeem token: %w", err)
	}
	i.noteRedeemed(t.ID, key, id)
	return nil
}

func (i *Identity) dropRedeemed(token string) error {
	for key := range i.redeemed[token] {
		name := redemptionName(token, key)
		var r redemption
		rev, err := i.cfg.Records.Get(name, &r)
		if err != nil {
			return err
		}
		if err := i.cfg.Records.Delete(name, rev); err != nil {
			return err
		}
		delete(i.redeemed[token], key)
	}
	delete(i.redeemed, token)
	return nil
}
