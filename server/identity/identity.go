// Package identity owns the control CA and what it signs: the server's identity
// and the hosts'. It keeps the join tokens and the record of each host (who it
// is, which keys it may use, whether it was removed).
//
// The control CA is apart from the registry CA: rotating the one never touches
// the other. A certificate alone proves nothing here: every call checks the
// host's record, so that removal counts at once. What a host has installed is
// not known here, that is the fleet's.
package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"sync"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

const (
	recordName = "control"

	// Lives of DESIGN §6.
	controlLife = 10 * 365 * 24 * time.Hour
	serverLife  = 30 * 24 * time.Hour
	hostLife    = 90 * 24 * time.Hour

	// RenewGrace is how long an expired host key may still call Renew. That a host
	// was removed is remembered for as long: until then its key means something.
	RenewGrace = 365 * 24 * time.Hour
)

// Sentinels for callers that branch; the texts around them tell people more.
var (
	// ErrNotFound: no such host or token.
	ErrNotFound = errors.New("not found")
	// ErrTaken: the wanted host name belongs to another host.
	ErrTaken = errors.New("the name is taken")
	// ErrToken: the join token is not good (any more).
	ErrToken = errors.New("the join token was refused")
	// ErrUnknown: no identity, or one that is not of this fleet.
	ErrUnknown = errors.New("no identity of this fleet")
	// ErrRemoved: the host was removed from the fleet.
	ErrRemoved = errors.New("this host was removed from the fleet; to bring it back, run `trustcast-agent leave` there and join with a new token")
	// ErrExpired: the identity ended; Renew still works for a year.
	ErrExpired = errors.New("the identity has expired")
	// ErrInvalid: the request itself is malformed.
	ErrInvalid = errors.New("invalid request")
)

// Config introduces the identities to the rest of the server.
type Config struct {
	Records *records.Store
	Keys    *records.Keys
	// Lives of what is made from now on: the control CA (0: ten years), the
	// server's identity (0: 30 days) and hosts' identities (0: 90 days).
	ControlLife, ServerLife, HostLife time.Duration
	// Paused says that automatic renewals wait, because the clock is wrong; nil:
	// never.
	Paused func() bool
	// Reissued is called after the control CA got a new certificate, which hosts
	// shall have; nil: nobody is told.
	Reissued func()
	Log      *slog.Logger
}

func (cfg Config) withDefaults() Config {
	for life, usual := range map[*time.Duration]time.Duration{&cfg.ControlLife: controlLife, &cfg.ServerLife: serverLife, &cfg.HostLife: hostLife} {
		if *life == 0 {
			*life = usual
		}
	}
	if cfg.Paused == nil {
		cfg.Paused = func() bool { return false }
	}
	if cfg.Reissued == nil {
		cfg.Reissued = func() {}
	}
	return cfg
}

// control is the record of the control CA and the server's own identity.
type control struct {
	FleetID string        `json:"fleet_id"`
	CA      []byte        `json:"ca"`
	CAKey   records.KeyID `json:"ca_key"`
	// CAMade is when the CA's certificate was signed; zero in records of before
	// it could be re-issued.
	CAMade     time.Time     `json:"ca_made,omitzero"`
	Server     []byte        `json:"server"`
	ServerKey  records.KeyID `json:"server_key"`
	ServerMade time.Time     `json:"server_made"`
	// AdoptFrom is when the backup was made that this record came from; zero for
	// none. Identities issued later are on record again when they come.
	AdoptFrom time.Time `json:"adopt_from,omitzero"`
	Ring
}

// Identity is the control CA of one fleet.
type Identity struct {
	cfg   Config
	fleet string // its ID, which never changes

	mu      sync.Mutex
	control control
	rev     uint64
	ca      *x509.Certificate
	caKey   *ecdsa.PrivateKey
	server  *tls.Certificate
	hosts   map[string]hostRecord // by ID
	listed  []Host                // what Hosts returns; nil after a change
	revs    map[string]uint64     // their revisions
	names   map[string]string     // name -> ID of hosts that are not removed
	// redeemed is by token ID.
	redeemed map[string]redeemed
}

// Create makes a control CA, the server's identity and a gossip key, and writes
// the record. It refuses to replace one.
func Create(cfg Config, now time.Time) (fleetID string, err error) {
	cfg = cfg.withDefaults()
	raw := make([]byte, 16+gossipKeySize) // fleet ID, gossip key
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make fleet: %w", err)
	}
	c := control{FleetID: hex.EncodeToString(raw[:16]), CAMade: now, Ring: Ring{Keys: [][]byte{raw[16:]}}}
	keyID, key, err := cfg.Keys.New()
	if err != nil {
		return "", fmt.Errorf("make control CA: %w", err)
	}
	if c.CA, err = c.signCA(key, now.Add(-certs.CABackdate), now.Add(cfg.ControlLife)); err != nil {
		return "", fmt.Errorf("make control CA: %w", err)
	}
	c.CAKey = keyID
	i := &Identity{cfg: cfg, fleet: c.FleetID, control: c, caKey: key}
	if i.ca, err = x509.ParseCertificate(c.CA); err != nil {
		return "", fmt.Errorf("make control CA: %w", err)
	}
	if err := i.renewServer(now); err != nil { // writes the record
		return "", err
	}
	return c.FleetID, nil
}

// Open loads the control CA and all hosts.
func Open(cfg Config) (*Identity, error) {
	cfg = cfg.withDefaults()
	i := &Identity{cfg: cfg, hosts: map[string]hostRecord{}, revs: map[string]uint64{}, names: map[string]string{}, redeemed: map[string]redeemed{}}
	var err error
	if i.rev, err = cfg.Records.Get(recordName, &i.control); err != nil {
		return nil, fmt.Errorf("open control CA: %w", err)
	}
	if err := i.control.check(); err != nil {
		return nil, err
	}
	i.fleet = i.control.FleetID
	if i.ca, err = x509.ParseCertificate(i.control.CA); err != nil {
		return nil, fmt.Errorf("open control CA: %w", err)
	}
	if i.caKey, err = cfg.Keys.Load(i.control.CAKey); err != nil {
		return nil, fmt.Errorf("open control CA: %w", err)
	}
	if err := i.loadServer(); err != nil {
		return nil, err
	}
	for _, name := range cfg.Records.List(hostPrefix) {
		var h hostRecord
		rev, err := cfg.Records.Get(name, &h)
		if err != nil {
			return nil, fmt.Errorf("open hosts: %w", err)
		}
		i.keep(h, rev)
	}
	if err := i.loadRedeemed(); err != nil {
		return nil, err
	}
	return i, nil
}

func (i *Identity) loadServer() error {
	key, err := i.cfg.Keys.Load(i.control.ServerKey)
	if err != nil {
		return fmt.Errorf("open server identity: %w", err)
	}
	leaf, err := x509.ParseCertificate(i.control.Server)
	if err != nil {
		return fmt.Errorf("open server identity: %w", err)
	}
	// The control CA travels with the leaf: a joining agent finds its pin there.
	i.server = &tls.Certificate{Certificate: [][]byte{leaf.Raw, i.ca.Raw}, PrivateKey: key, Leaf: leaf}
	return nil
}

// FleetID is random and fixed for the life of the fleet.
func (i *Identity) FleetID() string { return i.fleet }

// ControlCAs are the certificates that agents verify the server with, DER.
func (i *Identity) ControlCAs() [][]byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return [][]byte{i.ca.Raw}
}

// Pin of the control CA, for tokens.
func (i *Identity) Pin() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return certs.Pin(i.ca)
}

// Keys returns the private keys that the records name.
func (i *Identity) Keys() []records.KeyID {
	i.mu.Lock()
	defer i.mu.Unlock()
	return []records.KeyID{i.control.CAKey, i.control.ServerKey}
}

// TLS returns the configuration of the gRPC port: TLS 1.3, the server's
// identity, and a client certificate asked for but not judged in the handshake:
// Enroll has none and Renew may have an expired one, so Authenticate judges
// each call.
func (i *Identity) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		// A resumed session would carry an old judgement; each connection
		// shows its certificate.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.server, nil
		},
	}
}

// sign makes an identity certificate: one URI, one usage.
func (i *Identity) sign(pub any, name, path string, usage x509.ExtKeyUsage, now time.Time, life time.Duration) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	end := now.Add(life)
	if end.After(i.ca.NotAfter) {
		end = i.ca.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-certs.CABackdate),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
		URIs:         []*url.URL{{Scheme: "trustcast", Host: i.fleet, Path: path}},
	}
	return x509.CreateCertificate(rand.Reader, template, i.ca, pub, i.caKey)
}
