package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	hostPrefix = "hosts/"
	// maxCSR bounds a request from outside (bytes); ours has about 250.
	maxCSR = 8 << 10
)

// hostNames are what DESIGN §7 allows; they become file names and arguments.
var hostNames = regexp.MustCompile(`^[a-z0-9.-]{1,63}$`)

// hostRecord is who a host is. A key is the SHA-256 of its SPKI in hex; Next
// becomes Current when it first authenticates.
type hostRecord struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Current  string    `json:"current"`
	Next     string    `json:"next,omitempty"`
	Removed  bool      `json:"removed"`
	Enrolled time.Time `json:"enrolled"`
	// Ends is when the newest identity expires; Made is when it was signed, zero
	// in records of before that was written down.
	Ends time.Time `json:"ends"`
	Made time.Time `json:"made,omitzero"`
}

// Host is a member of the fleet, as others see it.
type Host struct {
	ID, Name string
	Removed  bool
	Enrolled time.Time
	// Made and Ends are of the newest identity; Made may be zero in old records.
	Made, Ends time.Time
}

func (h hostRecord) host() Host {
	return Host{ID: h.ID, Name: h.Name, Removed: h.Removed, Enrolled: h.Enrolled, Made: h.Made, Ends: h.Ends}
}

// Hosts lists all hosts that are not removed, by name.
func (i *Identity) Hosts() []Host {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.listed == nil {
		i.listed = make([]Host, 0, len(i.names))
		for _, id := range i.names {
			i.listed = append(i.listed, i.hosts[id].host())
		}
		slices.SortFunc(i.listed, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	}
	return slices.Clone(i.listed)
}

// Removed lists the removed hosts that are still on record.
func (i *Identity) Removed() []Host {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []Host
	for _, h := range i.hosts {
		if h.Removed {
			out = append(out, h.host())
		}
	}
	return out
}

// WatchHost returns a channel that is nudged after the record of a host changed;
// stop ends it.
func (i *Identity) WatchHost(id string) (changed <-chan struct{}, stop func()) {
	return i.cfg.Records.Watch(hostPrefix + id)
}

// Host finds a host that is not removed by name or ID.
func (i *Identity) Host(nameOrID string) (Host, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, err := i.find(nameOrID)
	return h.host(), err
}

func (i *Identity) find(nameOrID string) (hostRecord, error) {
	// The ID first: nobody chooses it, while a host could take another's ID for
	// its name and be found in its place.
	if h, ok := i.hosts[nameOrID]; ok && !h.Removed {
		return h, nil
	}
	if id, ok := i.names[nameOrID]; ok {
		return i.hosts[id], nil
	}
	return hostRecord{}, fmt.Errorf("host %q: %w; `trustcast host ls` lists them", nameOrID, ErrNotFound)
}

// Active says whether the host may still take part: every message of a long
// stream asks.
func (i *Identity) Active(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.hosts[id]
	switch {
	case !ok:
		return ErrUnknown
	case h.Removed:
		return ErrRemoved
	}
	return nil
}

// Remove revokes a host by name or ID, durably. What it knows of the gossip ring
// must end as well: see Ring.Again.
func (i *Identity) Remove(nameOrID string) (Host, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, err := i.find(nameOrID)
	if err != nil {
		return Host{}, err
	}
	if err := i.lockOut(); err != nil {
		return Host{}, fmt.Errorf("remove host %s: %w", h.Name, err)
	}
	h.Removed = true
	if err := i.put(h); err != nil {
		return Host{}, fmt.Errorf("remove host %s: %w", h.Name, err)
	}
	return h.host(), nil
}

// Forget drops the record of a removed or long unheard host altogether.
func (i *Identity) Forget(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.hosts[id]
	if !ok {
		return nil
	}
	if err := i.cfg.Records.Delete(hostPrefix+id, i.revs[id]); err != nil {
		return fmt.Errorf("forget host %s: %w", h.Name, err)
	}
	i.listed = nil
	delete(i.hosts, id)
	delete(i.revs, id)
	if i.names[h.Name] == id {
		delete(i.names, h.Name)
	}
	return nil
}

// put writes a host's record and keeps it. The caller holds mu.
func (i *Identity) put(h hostRecord) error {
	rev, err := i.cfg.Records.Put(hostPrefix+h.ID, i.revs[h.ID], h)
	if err != nil {
		return err
	}
	i.keep(h, rev)
	return nil
}

func (i *Identity) keep(h hostRecord, rev uint64) {
	i.listed = nil
	i.hosts[h.ID], i.revs[h.ID] = h, rev
	switch {
	case !h.Removed:
		i.names[h.Name] = h.ID
	case i.names[h.Name] == h.ID:
		delete(i.names, h.Name)
	}
}

// requestedKey vets a CSR and returns its key and the key's hash.
func requestedKey(csr []byte) (*ecdsa.PublicKey, string, error) {
	if len(csr) > maxCSR {
		return nil, "", fmt.Errorf("%w: the certificate request has %d bytes; at most %d are read", ErrInvalid, len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, "", fmt.Errorf("%w: the certificate request does not parse", ErrInvalid)
	}
	// The key before its signature: checking one of a huge RSA key is work that
	// a stranger could cause.
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, "", fmt.Errorf("%w: the certificate request has no ECDSA P-256 key", ErrInvalid)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("%w: the certificate request is not signed by its key", ErrInvalid)
	}
	return pub, keyOf(req.RawSubjectPublicKeyInfo), nil
}

func keyOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
