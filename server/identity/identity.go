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
	"context"
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

	// renewGrace is how long an expired host key may still call Renew.
	renewGrace = 365 * 24 * time.Hour
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
	ErrRemoved = errors.New("this host was removed from the fleet")
	// ErrExpired: the identity ended; Renew still works for a year.
	ErrExpired = errors.New("the identity has expired")
	// ErrInvalid: the request itself is malformed.
	ErrInvalid = errors.New("invalid request")
)

// Config introduces the identities to the rest of the server.
type Config struct {
	Records *records.Store
	Keys    *records.Keys
	// HostLife of new host identities; 0: 90 days.
	HostLife time.Duration
	Log      *slog.Logger
}

// control is the record of the control CA and the server's own identity.
type control struct {
	FleetID    string        `json:"fleet_id"`
	CA         []byte        `json:"ca"`
	CAKey      records.KeyID `json:"ca_key"`
	Server     []byte        `json:"server"`
	ServerKey  records.KeyID `json:"server_key"`
	ServerMade time.Time     `json:"server_made"`
	// GossipKeys is the ring, the first encrypts.
	GossipKeys [][]byte `json:"gossip_keys"`
}

// Identity is the control CA of one fleet.
type Identity struct {
	cfg Config

	mu      sync.Mutex
	control control
	rev     uint64
	ca      *x509.Certificate
	caKey   *ecdsa.PrivateKey
	server  *tls.Certificate
	hosts   map[string]hostRecord // by ID
	revs    map[string]uint64     // their revisions
	names   map[string]string     // name -> ID of hosts that are not removed
}

// Create makes a control CA, the server's identity and a gossip key, and writes
// the record. It refuses to replace one.
func Create(cfg Config, now time.Time) (fleetID string, err error) {
	raw := make([]byte, 16+32) // fleet ID, gossip key
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make fleet: %w", err)
	}
	c := control{FleetID: hex.EncodeToString(raw[:16]), GossipKeys: [][]byte{raw[16:]}}
	keyID, key, err := cfg.Keys.New()
	if err != nil {
		return "", fmt.Errorf("make control CA: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "trustcast control CA " + c.FleetID[:8]},
		NotBefore:             now.Add(-certs.CABackdate),
		NotAfter:              now.Add(controlLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	if c.CA, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return "", fmt.Errorf("make control CA: %w", err)
	}
	c.CAKey = keyID
	i := &Identity{cfg: cfg, control: c, caKey: key}
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
	if cfg.HostLife == 0 {
		cfg.HostLife = hostLife
	}
	i := &Identity{cfg: cfg, hosts: map[string]hostRecord{}, revs: map[string]uint64{}, names: map[string]string{}}
	var err error
	if i.rev, err = cfg.Records.Get(recordName, &i.control); err != nil {
		return nil, fmt.Errorf("open control CA: %w", err)
	}
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
func (i *Identity) FleetID() string { return i.control.FleetID } // never changes after Open

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

// GossipKeys is the ring that members use.
func (i *Identity) GossipKeys() [][]byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.control.GossipKeys
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

// Run renews the server's identity at two thirds of its life until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	for {
		i.mu.Lock()
		due := i.control.ServerMade.Add(serverLife * 2 / 3)
		var err error
		if !time.Now().Before(due) {
			err = i.renewServer(time.Now())
		}
		i.mu.Unlock()
		if err != nil {
			i.cfg.Log.Error("the server's identity was not renewed; trying again in an hour", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Hour): // a life is 30 days, an hour late is early
		}
	}
}

// renewServer signs a new identity of the server. The caller holds mu, or is
// the only one.
func (i *Identity) renewServer(now time.Time) error {
	keyID, key, err := i.cfg.Keys.New()
	if err != nil {
		return fmt.Errorf("renew server identity: %w", err)
	}
	c := i.control
	old := c.ServerKey
	der, err := i.sign(key.Public(), "server", "/server", x509.ExtKeyUsageServerAuth, now, serverLife)
	if err != nil {
		return fmt.Errorf("renew server identity: %w", err)
	}
	c.Server, c.ServerKey, c.ServerMade = der, keyID, now
	rev, err := i.cfg.Records.Put(recordName, i.rev, c)
	if err != nil {
		return fmt.Errorf("renew server identity: %w", err)
	}
	i.control, i.rev = c, rev
	if old != "" {
		if err := i.cfg.Keys.Destroy(old); err != nil {
			return err
		}
	}
	return i.loadServer()
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
		URIs:         []*url.URL{{Scheme: "trustcast", Host: i.control.FleetID, Path: path}},
	}
	return x509.CreateCertificate(rand.Reader, template, i.ca, pub, i.caKey)
}
