package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxRoots is how many CAs a bundle holds at most: the active one, and in a
// rotation the one that comes or goes.
const MaxRoots = 2

// maxPEM bounds a ca.crt that is read back (bytes): two CAs have 2 kB, and a
// file that somebody filled by hand is still read in full.
const maxPEM = 1 << 20

// Fingerprint is a SHA-256 in hex: over a bundle's certificates (DER, sorted),
// or over one certificate.
type Fingerprint string

// Short returns the first 12 characters, enough for people.
func (f Fingerprint) Short() string { return string(f)[:min(12, len(f))] }

// ParseFingerprint reads a SHA-256 in hex; "" is none.
func ParseFingerprint(s string) (Fingerprint, error) {
	if raw, err := hex.DecodeString(s); err != nil || s != "" && len(raw) != sha256.Size {
		return "", fmt.Errorf("%.80q is no SHA-256 in hex", s)
	}
	return Fingerprint(strings.ToLower(s)), nil
}

// FingerprintOf hashes certificates independent of their order; none give "".
func FingerprintOf(roots ...*x509.Certificate) Fingerprint {
	if len(roots) == 0 {
		return ""
	}
	ders := make([][]byte, len(roots))
	for i, c := range roots {
		ders[i] = c.Raw
	}
	slices.SortFunc(ders, bytes.Compare)
	sum := sha256.Sum256(bytes.Join(ders, nil))
	return Fingerprint(hex.EncodeToString(sum[:]))
}

// Bundle is the CA certificates that a host should trust for the registry now,
// under the generation that grows with each change.
type Bundle struct {
	Generation uint64
	Roots      []*x509.Certificate
}

// ParseBundle vets a bundle from outside for names at the given time. adopted is the
// fingerprint of the one certificate that need not be constrained to the names, and
// that alone is generation 0; "" for none.
func ParseBundle(generation uint64, ders [][]byte, names []Name, at time.Time, adopted Fingerprint) (Bundle, error) {
	if len(ders) == 0 || len(ders) > MaxRoots {
		return Bundle{}, fmt.Errorf("bundle refused: it has %d certificates; one or two are accepted", len(ders))
	}
	b := Bundle{Generation: generation}
	for _, der := range ders {
		cert, err := ParseCertificate(der)
		switch {
		case err != nil:
		case adopted != "" && FingerprintOf(cert) == adopted:
			err = vetAdopted(cert, at)
		default:
			err = VetCA(cert, names, at)
		}
		if err != nil {
			return Bundle{}, fmt.Errorf("bundle refused: %w", err)
		}
		b.Roots = append(b.Roots, cert)
	}
	if len(b.Roots) == 2 && bytes.Equal(b.Roots[0].Raw, b.Roots[1].Raw) {
		return Bundle{}, errors.New("bundle refused: it has the same certificate twice")
	}
	if generation == 0 && (adopted == "" || b.Fingerprint() != adopted) {
		return Bundle{}, errors.New("bundle refused: it has no generation")
	}
	return b, nil
}

// Fingerprint of the bundle's roots.
func (b Bundle) Fingerprint() Fingerprint { return FingerprintOf(b.Roots...) }

// DER returns the roots as they travel.
func (b Bundle) DER() [][]byte {
	ders := make([][]byte, len(b.Roots))
	for i, c := range b.Roots {
		ders[i] = c.Raw
	}
	return ders
}

// PEM returns the content of ca.crt.
func (b Bundle) PEM() []byte { return EncodePEM(b.Roots...) }

// EncodePEM writes certificates one after the other.
func EncodePEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer does not fail
	}
	return out.Bytes()
}

// ParsePEM reads the certificates of a ca.crt as it is on disk, whoever wrote
// it. Content that is no certificate is an error: some clients would refuse the
// whole directory over it.
func ParsePEM(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("file has %d bytes; at most %d are read", len(data), maxPEM)
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("file holds a %q block; only certificates belong there", block.Type)
		}
		cert, err := ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(bytes.TrimSpace(data)) > 0 {
		return nil, errors.New("file holds something that is no PEM certificate")
	}
	if len(certs) == 0 {
		return nil, errors.New("file holds no certificate")
	}
	return certs, nil
}
