package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
)

// stateFormat is the version of the agent's files, adoptedFormat that of an
// identity that names an adopted certificate, runtimesFormat that of a list of owned
// files with the runtimes, which the agents before do not know;
// a greater one was written by a newer agent and is refused.
const (
	stateFormat    = 1
	adoptedFormat  = 2
	runtimesFormat = 3
)

// The files in the data directory. Each is written whole and durably.
const (
	identityFile = "identity.json" // who we are; written by join and renewal
	pendingFile  = "pending.json"  // a key whose certificate is not here yet
	trustedFile  = "trusted.json"  // the last-good wanted state
	ownedFile    = "owned.json"    // what we have written on this host
	bootFile     = "boot.json"     // how often we were started
	statusFile   = "status.json"   // what `status` shows of a running agent
	leavingFile  = "leaving"       // an agent that runs must let go of this membership
	lockFile     = "lock"          // held while somebody works on this membership
	runFile      = "run.lock"      // of the data directory, held while an agent runs
)

// stateFiles in the order in which leave removes them: the identity goes last,
// until then leave can be repeated.
var stateFiles = []string{statusFile, trustedFile, ownedFile, bootFile, pendingFile, identityFile}

// enrolment is who this host is and whom it obeys; fixed by joining, but for
// certificate, key and control CAs, which renewals replace.
type enrolment struct {
	Format  int    `json:"format"`
	FleetID string `json:"fleet_id"`
	HostID  string `json:"host_id"`
	Name    string `json:"name"`
	Domain  string `json:"domain"`
	Server  string `json:"server"`
	Cert    []byte `json:"cert"`
	Key     []byte `json:"key"` // PKCS#8
	// Received is when the certificate came; it is renewed at two thirds from here.
	Received time.Time `json:"received"`
	// ControlCAs are the only roots for the server's identity, DER.
	ControlCAs [][]byte `json:"control_cas"`
	Gossip     ring     `json:"gossip"`
	// Adopted is the one certificate that a bundle may hold although it is not
	// constrained to the domain; "" for none. Fixed by joining.
	Adopted certs.Fingerprint `json:"adopted,omitempty"`
}

// ring is how to take part in gossip.
type ring struct {
	Keys  [][]byte `json:"keys"`
	Peers []string `json:"peers"`
	// Version is the server's; 0 in files of before it had one.
	Version uint64 `json:"version,omitempty"`
}

// same says whether two rings are one.
func (r ring) same(o ring) bool {
	return r.Version == o.Version && slices.EqualFunc(r.Keys, o.Keys, bytes.Equal) && slices.Equal(r.Peers, o.Peers)
}

// pending is a key that left as a CSR; a repeated request must carry it again.
type pending struct {
	Format int    `json:"format"`
	Key    []byte `json:"key"`
	// Token is the ID of the token it was made for; "" for a renewal.
	Token string `json:"token"`
}

// trusted is the last wanted state that was accepted.
type trusted struct {
	Format     int               `json:"format"`
	Revision   uint64            `json:"revision"`
	Rotation   uint64            `json:"rotation"`
	Generation uint64            `json:"generation"`
	Print      certs.Fingerprint `json:"fingerprint"`
	Roots      [][]byte          `json:"roots"`
	Names      []string          `json:"names"`
	Tick       time.Duration     `json:"tick"`
	Window     time.Duration     `json:"window"`
	Registry   string            `json:"registry"`
	Gossip     ring              `json:"gossip"`
}

type owned struct {
	Format int `json:"format"`
	install.Owned
	// Runtimes that it was planned for; nil in files of before there were others.
	Runtimes []string `json:"runtimes,omitempty"`
}

// newOwned has the oldest format that can say it.
func newOwned(o install.Owned, runtimes []string) owned {
	format := stateFormat
	if runtimes != nil {
		format = runtimesFormat
	}
	return owned{Format: format, Owned: o, Runtimes: runtimes}
}

type boot struct {
	Format int    `json:"format"`
	Boot   uint64 `json:"boot"`
}

// store is the agent's data directory.
type store struct{ dir string }

// openStore makes the directory (0700) if it is missing. A server's is refused, unless
// this host has joined from there already: its keys and records are in it.
func openStore(dir string) (store, error) {
	if s := (store{dir}); s.has(filepath.Join("state", "records")) && !s.has(identityFile) {
		return store{}, fmt.Errorf("%s is the data directory of a trustcast server, and an agent needs one of its own: give another --data-dir (TRUSTCAST_DATA_DIR is read by both programs)", dir)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return store{}, fmt.Errorf("agent's data directory: %w", forWhom(err))
	}
	return store{dir: dir}, nil
}

func (s store) has(name string) bool {
	_, err := os.Stat(filepath.Join(s.dir, name))
	return err == nil
}

// forWhom says what to do about a directory of somebody else.
func forWhom(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: run this as root, or give a directory of yours with --data-dir (and --docker-certs-dir)", err)
}

// read decodes a file; ok is false when it is not there.
func (s store) read(name string, into any) (ok bool, err error) {
	path := filepath.Join(s.dir, name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read state: %w", forWhom(err))
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return false, s.damaged(name, err)
	}
	if head.Format > runtimesFormat {
		return false, fmt.Errorf("%s has format %d, written by a newer agent; this one reads up to %d: install the newer version again", path, head.Format, runtimesFormat)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return false, s.damaged(name, err)
	}
	return true, nil
}

// damaged says what to do about a file that cannot be used.
func (s store) damaged(name string, why error) error {
	what := s.dir
	if s.has(registriesDir) {
		what = filepath.Join(s.dir, "*.json") // beside them are other memberships
	}
	return fmt.Errorf("%s is damaged (%w): remove %s and join again with a token made by `trustcast token create --host NAME`", filepath.Join(s.dir, name), why, what)
}

func (s store) write(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return durable.WriteFile(filepath.Join(s.dir, name), append(data, '\n'), 0o600)
}

func (s store) remove(name string) error { return durable.Remove(filepath.Join(s.dir, name)) }

// sweep removes what killed writes left; some of it may hold a key. The caller
// has the lock.
func (s store) sweep() error {
	return durable.Strays(s.dir, append([]string{leavingFile}, stateFiles...)...)
}

// nextBoot counts this start.
func (s store) nextBoot() (uint64, error) {
	var b boot
	if _, err := s.read(bootFile, &b); err != nil {
		return 0, err
	}
	b = boot{Format: stateFormat, Boot: b.Boot + 1}
	return b.Boot, s.write(bootFile, b)
}

// pendingKey returns the key that a repeated request for token must carry, or
// makes one. It is on disk before its CSR can leave.
func (s store) pendingKey(token string) (*ecdsa.PrivateKey, error) {
	var p pending
	ok, err := s.read(pendingFile, &p)
	if err != nil {
		return nil, err
	}
	if ok && p.Token == token {
		return parseKey(p.Key)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, s.write(pendingFile, pending{Format: stateFormat, Key: der, Token: token})
}

// settlePending removes a pending key whose certificate has arrived: a kill
// came between the two files.
func (s store) settlePending(e enrolment) error {
	var p pending
	ok, err := s.read(pendingFile, &p)
	if err != nil || !ok || !bytes.Equal(p.Key, e.Key) {
		return err
	}
	return s.remove(pendingFile)
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the agent's key is damaged: remove its data directory and join again")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the agent's key is of type %T; only ECDSA is used here", parsed)
	}
	return key, nil
}

// certificate is the client certificate of this host.
func (e enrolment) certificate() (tls.Certificate, error) {
	key, err := parseKey(e.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(e.Cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the agent's identity is damaged: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{e.Cert}, PrivateKey: key, Leaf: leaf}, nil
}

// names parses the registry names of a trusted state.
func parseNames(domain string, names []string) ([]certs.Name, error) {
	first, err := certs.ParseName(domain, certs.DefaultPort)
	if err != nil {
		return nil, err
	}
	parsed := []certs.Name{first}
	for _, s := range names {
		n, err := certs.ParseName(s, first.Port)
		if err != nil {
			return nil, err
		}
		if n != first {
			parsed = append(parsed, n)
		}
	}
	return parsed, nil
}

// bundle parses the roots of a trusted state, which were vetted when accepted.
func (t trusted) bundle() (certs.Bundle, error) {
	b := certs.Bundle{Generation: t.Generation}
	for _, der := range t.Roots {
		cert, err := certs.ParseCertificate(der)
		if err != nil {
			return certs.Bundle{}, err
		}
		b.Roots = append(b.Roots, cert)
	}
	return b, nil
}
