package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
	"sort"
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
	// Ends is when the newest identity expires.
	Ends time.Time `json:"ends"`
}

// Host is a member of the fleet, as others see it.
type Host struct {
	ID, Name       string
	Removed        bool
	Enrolled, Ends time.Time
}

func (h hostRecord) host() Host {
	return Host{ID: h.ID, Name: h.Name, Removed: h.Removed, Enrolled: h.Enrolled, Ends: h.Ends}
}

// Hosts lists all hosts that are not removed, by name.
func (i *Identity) Hosts() []Host {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make([]Host, 0, len(i.names))
	for _, id := range i.names {
		out = append(out, i.hosts[id].host())
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Name < out[b].Name })
	return out
}

// Host finds a host that is not removed by name or ID.
func (i *Identity) Host(nameOrID string) (Host, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, err := i.find(nameOrID)
	return h.host(), err
}

func (i *Identity) find(nameOrID string) (hostRecord, error) {
	if id, ok := i.names[nameOrID]; ok {
		return i.hosts[id], nil
	}
	if h, ok := i.hosts[nameOrID]; ok && !h.Removed {
		return h, nil
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

// Remove revokes a host by name or ID, durably.
func (i *Identity) Remove(nameOrID string) (Host, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, err := i.find(nameOrID)
	if err != nil {
		return Host{}, err
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
	delete(i.hosts, id)
	delete(i.revs, id)
	if i.names[h.Name] == id {
		delete(i.names, h.Name)
	}
	return nil
}

// Authenticate finds the host that a client certificate belongs to. With
// renewing, an identity that expired up to a year ago is enough. The first use
// of a next key makes it the current one, durably.
func (i *Identity) Authenticate(cert *x509.Certificate, now time.Time, renewing bool) (Host, error) {
	if cert == nil {
		return Host{}, fmt.Errorf("%w: no client certificate; join first with `trustcast-agent join`", ErrUnknown)
	}
	id, err := i.hostID(cert)
	if err != nil {
		return Host{}, err
	}
	at := now
	if renewing && now.After(cert.NotAfter) && now.Before(cert.NotAfter.Add(renewGrace)) {
		at = cert.NotAfter // judged as on its last day
	}
	if now.After(cert.NotAfter) && at.Equal(now) {
		return Host{}, fmt.Errorf("%w on %s", ErrExpired, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	pool := x509.NewCertPool()
	pool.AddCert(i.ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return Host{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return i.useKey(id, keyOf(cert.RawSubjectPublicKeyInfo))
}

func (i *Identity) hostID(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("%w: the certificate names no host", ErrUnknown)
	}
	u := cert.URIs[0]
	id, ok := strings.CutPrefix(u.Path, "/host/")
	if u.Scheme != "trustcast" || u.Host != i.control.FleetID || !ok {
		return "", fmt.Errorf("%w: the certificate is for %s", ErrUnknown, u.Redacted())
	}
	return id, nil
}

// useKey checks that key is one of the host's and promotes a next key.
func (i *Identity) useKey(id, key string) (Host, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.hosts[id]
	same := func(recorded string) bool {
		return recorded != "" && subtle.ConstantTimeCompare([]byte(recorded), []byte(key)) == 1
	}
	switch {
	case !ok:
		return Host{}, ErrUnknown
	case h.Removed:
		return Host{}, ErrRemoved
	case same(h.Current):
		return h.host(), nil
	case same(h.Next):
		h.Current, h.Next = h.Next, ""
		if err := i.put(h); err != nil {
			return Host{}, err
		}
		return h.host(), nil
	}
	return Host{}, fmt.Errorf("%w: the key of host %s was replaced", ErrUnknown, h.Name)
}

// Renew signs the next key of a host; of the CSR only the key counts.
func (i *Identity) Renew(id string, csr []byte, now time.Time) (identity []byte, err error) {
	pub, key, err := requestedKey(csr)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.hosts[id]
	if !ok || h.Removed {
		return nil, ErrRemoved
	}
	if key != h.Current {
		h.Next = key
	}
	return i.issue(h, pub, now)
}

// issue signs an identity for h and writes its record. The caller holds mu.
func (i *Identity) issue(h hostRecord, pub *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	der, err := i.sign(pub, h.Name, "/host/"+h.ID, x509.ExtKeyUsageClientAuth, now, i.cfg.HostLife)
	if err != nil {
		return nil, fmt.Errorf("sign identity of %s: %w", h.Name, err)
	}
	h.Ends = now.Add(i.cfg.HostLife)
	if err := i.put(h); err != nil {
		return nil, err
	}
	return der, nil
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
	if err := req.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("%w: the certificate request is not signed by its key", ErrInvalid)
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, "", fmt.Errorf("%w: the certificate request has no ECDSA P-256 key", ErrInvalid)
	}
	return pub, keyOf(req.RawSubjectPublicKeyInfo), nil
}

func keyOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

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
	t, rev, err := i.redeemable(e.TokenID, e.Secret, key, now)
	if err != nil {
		return Host{}, nil, "", err
	}
	id, again := t.Redeemed[key]
	if again {
		if h, ok := i.hosts[id]; ok && !h.Removed {
			identity, err = i.issue(h, pub, now)
			return i.hosts[id].host(), identity, "", err
		}
		if h, ok := i.hosts[id]; ok && h.Removed {
			return Host{}, nil, "", ErrRemoved
		}
	} else if id, err = newHostID(); err != nil {
		return Host{}, nil, "", err
	}
	name, err := i.freeName(e.Name, t)
	if err != nil {
		return Host{}, nil, "", err
	}
	if !again { // the token is spent before the host exists: a crash between costs a repetition
		if err := i.redeem(t, rev, key, id); err != nil {
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
