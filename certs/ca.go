// Package certs is the vocabulary of trust: registry names, the registry CA and
// what it signs (leaf, predecessors), the bundle that hosts install with its
// fingerprint, evidence, and the join token.
//
// It is pure: no files, no network, no clock of its own, and only the standard
// library. Whatever comes from outside is vetted here (size, count, kind, key,
// dates, names) and refused with an error that says why. It decides nothing
// about when a certificate is made or served.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// CABackdate and LeafBackdate are how far before their making certificates
// become valid, for hosts whose clocks are behind.
const (
	CABackdate   = 48 * time.Hour
	LeafBackdate = 24 * time.Hour
)

const (
	// maxCertificate bounds a certificate from outside (bytes, DER); ours have
	// about 600, a hundred alias names add 3,000.
	maxCertificate = 16 << 10
)

// noDNSName is permitted when only addresses are served, because an empty list
// of permitted DNS names would permit all. RFC 2606 keeps it unused.
const noDNSName = "invalid"

// CA is a registry CA: its certificate, and its key unless that is destroyed.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// CATemplate says what a new registry CA shall be.
type CATemplate struct {
	// Subject without common name; the common name is made from Names and
	// Number and is new for each CA, since a repeated subject confuses chain
	// building.
	Subject pkix.Name
	// Number of the CA, shown in its common name.
	Number uint64
	// Names that it may sign for; critical name constraints.
	Names []Name
	// NotBefore and NotAfter bound its life.
	NotBefore, NotAfter time.Time
}

// NewCA makes a self-signed registry CA for key (ECDSA P-256). It has no path
// length limit, since a predecessor chain needs depth; name constraints bound
// it instead.
func NewCA(t CATemplate, key crypto.Signer) (CA, error) {
	if len(t.Names) == 0 {
		return CA{}, errors.New("make registry CA: no names")
	}
	var nonce [4]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return CA{}, fmt.Errorf("make registry CA: %w", err)
	}
	subject := t.Subject
	// A common name holds 64 characters (RFC 5280, ub-common-name).
	subject.CommonName = fmt.Sprintf("%.32s registry CA %d %s", t.Names[0].Host, t.Number, hex.EncodeToString(nonce[:]))
	template := &x509.Certificate{
		Subject:                     subject,
		NotBefore:                   t.NotBefore,
		NotAfter:                    t.NotAfter,
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLen:                  -1,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
	}
	constrain(template, t.Names)
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return CA{}, fmt.Errorf("make registry CA: %w", err)
	}
	return CA{Cert: cert, Key: key}, nil
}

// constrain permits names and nothing else: all addresses are excluded unless
// some are named.
func constrain(template *x509.Certificate, names []Name) {
	for _, n := range names {
		if ip := n.IP(); ip.IsValid() {
			template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(32, 32)})
		} else {
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, n.Host)
		}
	}
	if len(template.PermittedDNSDomains) == 0 {
		template.PermittedDNSDomains = []string{noDNSName}
	}
	if len(template.PermittedIPRanges) == 0 {
		template.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
}

// SignNext returns next's key signed by ca: the predecessor that lets a host
// which trusts only ca verify what next issued. It ends with the earlier of the
// two.
func (ca CA) SignNext(next *x509.Certificate) (*x509.Certificate, error) {
	if ca.Key == nil {
		return nil, fmt.Errorf("sign predecessor: the key of %q is destroyed", ca.Cert.Subject.CommonName)
	}
	template := &x509.Certificate{
		Subject:                     next.Subject,
		SubjectKeyId:                next.SubjectKeyId,
		NotBefore:                   later(next.NotBefore, ca.Cert.NotBefore),
		NotAfter:                    earlier(next.NotAfter, ca.Cert.NotAfter),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLen:                  -1,
		KeyUsage:                    next.KeyUsage,
		PermittedDNSDomainsCritical: next.PermittedDNSDomainsCritical,
		PermittedDNSDomains:         next.PermittedDNSDomains,
		PermittedIPRanges:           next.PermittedIPRanges,
		ExcludedIPRanges:            next.ExcludedIPRanges,
	}
	cert, err := sign(template, ca.Cert, next.PublicKey, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("sign predecessor: %w", err)
	}
	return cert, nil
}

// SignLeaf returns a serving certificate for one host name and key, valid from
// notBefore to notAfter but never beyond its CA.
func (ca CA) SignLeaf(host string, key crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	if ca.Key == nil {
		return nil, fmt.Errorf("sign leaf: the key of %q is destroyed", ca.Cert.Subject.CommonName)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: fmt.Sprintf("%.64s", host)},
		NotBefore:   later(notBefore, ca.Cert.NotBefore),
		NotAfter:    earlier(notAfter, ca.Cert.NotAfter),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	cert, err := sign(template, ca.Cert, key, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("sign leaf for %s: %w", host, err)
	}
	return cert, nil
}

func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// VerifyAlone checks leaf for host against one root and nothing else: no
// predecessors, no other roots. This is the proof that a host needs none.
func VerifyAlone(leaf, root *x509.Certificate, host string, at time.Time) error {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return verify(leaf, pool, nil, host, at)
}

// VerifyServed checks a served chain (leaf first, then predecessors) for host
// against roots, as a Docker engine does.
func VerifyServed(chain, roots []*x509.Certificate, host string, at time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate was served")
	}
	pool, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	// Most hosts have the leaf's own issuer. What verifies without predecessors does so
	// with them; it is much less work, which grows with each of them.
	if verify(chain[0], pool, intermediates, host, at) == nil {
		return nil
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	return verify(chain[0], pool, intermediates, host, at)
}

func verify(leaf *x509.Certificate, roots, intermediates *x509.CertPool, host string, at time.Time) error {
	_, err := leaf.Verify(x509.VerifyOptions{
		DNSName:       host,
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// ParseCertificate reads one certificate from outside, bounded in size.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("certificate has %d bytes; at most %d are read", len(der), maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate does not parse: %w", err)
	}
	return cert, nil
}

// VetCA says why cert is no registry CA for names at the given time, or nil.
func VetCA(cert *x509.Certificate, names []Name, at time.Time) error {
	subject := cert.Subject.CommonName
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return fmt.Errorf("certificate %q is no CA", subject)
	case cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("CA %q may not sign certificates", subject)
	case cert.MaxPathLen >= 0 && (cert.MaxPathLen > 0 || cert.MaxPathLenZero):
		return fmt.Errorf("CA %q limits the path length, which would break predecessors", subject)
	case !at.Before(cert.NotAfter):
		return fmt.Errorf("CA %q ended on %s", subject, cert.NotAfter.UTC().Format(time.RFC3339))
	case at.Before(cert.NotBefore):
		return fmt.Errorf("CA %q is valid only from %s: is this host's clock right?", subject, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return fmt.Errorf("CA %q has no ECDSA P-256 key", subject)
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return fmt.Errorf("CA %q is not signed by itself: %w", subject, err)
	}
	return vetConstraints(cert, names)
}

// vetConstraints checks that cert permits each of names, nothing else, and
// excludes all addresses unless some are named.
func vetConstraints(cert *x509.Certificate, names []Name) error {
	subject := cert.Subject.CommonName
	want := &x509.Certificate{}
	constrain(want, names)
	switch {
	case !cert.PermittedDNSDomainsCritical:
		return fmt.Errorf("CA %q has no critical name constraints: it could sign for any name", subject)
	case !sameSet(cert.PermittedDNSDomains, want.PermittedDNSDomains):
		return fmt.Errorf("CA %q may sign for %s, not for %s", subject, strings.Join(cert.PermittedDNSDomains, ", "), strings.Join(want.PermittedDNSDomains, ", "))
	case !sameSet(ranges(cert.PermittedIPRanges), ranges(want.PermittedIPRanges)),
		!sameSet(ranges(cert.ExcludedIPRanges), ranges(want.ExcludedIPRanges)):
		return fmt.Errorf("CA %q may sign for other addresses than the registry's", subject)
	}
	return nil
}

func ranges(nets []*net.IPNet) []string {
	var out []string
	for _, n := range nets {
		out = append(out, n.String())
	}
	return out
}

func sameSet(a, b []string) bool {
	in := map[string]int{}
	for _, s := range a {
		in[s] |= 1
	}
	for _, s := range b {
		in[s] |= 2
	}
	for _, both := range in {
		if both != 3 {
			return false
		}
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
