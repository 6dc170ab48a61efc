package identity

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/server/records"
)

// Description is what a copy of the records holds of the fleet's identities.
type Description struct {
	FleetID string
	// Keys are all that the record names.
	Keys []records.KeyID
	// Hosts are the names of those that are not removed, sorted.
	Hosts []string
	// Tokens is how many join tokens are still good.
	Tokens int
}

// Describe reads a copy of the records. It proves that they can be read, not that
// their keys are there.
func Describe(s records.Snapshot, now time.Time) (Description, error) {
	var c control
	if _, err := s.Get(recordName, &c); err != nil {
		return Description{}, fmt.Errorf("control CA: %w", err)
	}
	if _, err := x509.ParseCertificate(c.CA); err != nil {
		return Description{}, fmt.Errorf("control CA: %w", err)
	}
	d := Description{FleetID: c.FleetID, Keys: []records.KeyID{c.CAKey, c.ServerKey}}
	used := map[string]int{} // by token
	for _, name := range s.Names() {
		if token, _, ok := redemptionOf(name); ok {
			used[token]++
		}
	}
	for _, name := range s.Names() {
		if err := d.add(s, name, used, now); err != nil {
			return Description{}, err
		}
	}
	slices.Sort(d.Hosts)
	return d, nil
}

// add counts the record called name in; used is how often each token was.
func (d *Description) add(s records.Snapshot, name string, used map[string]int, now time.Time) error {
	switch {
	case strings.HasPrefix(name, hostPrefix):
		var h hostRecord
		if _, err := s.Get(name, &h); err != nil {
			return fmt.Errorf("host: %w", err)
		}
		if !h.Removed {
			d.Hosts = append(d.Hosts, h.Name)
		}
	case strings.HasPrefix(name, tokenPrefix):
		var t tokenRecord
		if _, err := s.Get(name, &t); err != nil {
			return fmt.Errorf("token: %w", err)
		}
		if t.state(now, len(t.Redeemed)+used[t.ID]) == "valid" {
			d.Tokens++
		}
	}
	return nil
}
