package identity

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

// Restore makes the records of a state directory that came from a backup ones that
// may lead the fleet again: every join token is revoked, the gossip key is
// another one, and identities that were issued after the backup was made are known
// again when they come, see adopt. No server runs on the records meanwhile.
func Restore(store *records.Store, made, now time.Time) error {
	i := &Identity{cfg: Config{Records: store}}
	if _, err := i.RevokeTokens(); err != nil {
		return err
	}
	rev, err := store.Get(recordName, &i.control)
	if err != nil {
		return fmt.Errorf("restore control CA: %w", err)
	}
	key := make([]byte, gossipKeySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make gossip key: %w", err)
	}
	i.control.Ring = i.control.replaced(key, now)
	// A backup of a restored server may not know yet whom that one would adopt.
	if from := i.control.AdoptFrom; from.IsZero() || made.Before(from) {
		i.control.AdoptFrom = made.UTC()
	}
	if _, err := store.Put(recordName, rev, i.control); err != nil {
		return fmt.Errorf("restore control CA: %w", err)
	}
	return nil
}

// replaced is a ring of one new key at once: after a restore nobody has the
// recorded one for sure, and hosts get the new one when they connect. Its version
// is above any that hosts can have.
func (r Ring) replaced(key []byte, now time.Time) Ring {
	return Ring{Version: max(r.Version+1, uint64(max(now.Unix(), 0))), Keys: [][]byte{key}, Since: now.UTC()} //nolint:gosec // not negative
}

// adopt takes a host, or its newer key, on record again: the certificate was
// verified, and it was issued after the backup that this record came from. The
// caller holds mu.
func (i *Identity) adopt(id, key string, cert *x509.Certificate) (Host, bool, error) {
	issued := cert.NotBefore.Add(certs.CABackdate)
	from := i.control.AdoptFrom
	h, known := i.hosts[id]
	if from.IsZero() || issued.Before(from.Truncate(time.Second)) || h.Removed || known && !issued.After(h.Made.Truncate(time.Second)) {
		return Host{}, false, nil
	}
	if !known {
		name := cert.Subject.CommonName
		if !hostNames.MatchString(name) {
			return Host{}, false, nil
		}
		if holder, taken := i.names[name]; taken {
			gone := i.hosts[holder]
			if !gone.Enrolled.Before(issued) { // who comes now was replaced since
				return Host{}, false, ErrRemoved
			}
			if err := i.lockOut(); err != nil {
				return Host{}, false, err
			}
			gone.Removed = true // it was replaced after the backup
			if err := i.put(gone); err != nil {
				return Host{}, false, err
			}
		}
		h = hostRecord{ID: id, Name: name, Enrolled: issued.UTC()}
	}
	h.Current, h.Next, h.Made, h.Ends = key, "", issued.UTC(), cert.NotAfter
	if err := i.put(h); err != nil {
		return Host{}, false, err
	}
	i.cfg.Log.Warn("host adopted: its identity was issued after the backup that this server was restored from", "host", h.Name, "id", id)
	return h.host(), true, nil
}
