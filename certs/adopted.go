package certs

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Adopted is the certificate that a registry served before trustcast made any.
type Adopted struct {
	// Leaf is served unchanged, followed by Chain.
	Leaf  *x509.Certificate
	Chain []*x509.Certificate
	// Root issued Leaf, and is Leaf itself when that is self-signed. Alone in a
	// bundle it verifies Leaf; it need not be a CA.
	Root *x509.Certificate
}

// Adopt judges what a registry serves (leaf first) and the CA certificates beside
// it, for host at the given time. An error says why no Docker engine accepts it, or
// what is missing.
func Adopt(served, cas []*x509.Certificate, host string, at time.Time) (Adopted, error) {
	if len(served) == 0 {
		return Adopted{}, errors.New("there is no certificate")
	}
	leaf := served[0]
	switch {
	case !at.Before(leaf.NotAfter):
		return Adopted{}, fmt.Errorf("the certificate ended on %s, no host pulls with it", leaf.NotAfter.UTC().Format(time.DateOnly))
	case at.Before(leaf.NotBefore):
		return Adopted{}, fmt.Errorf("the certificate is valid only from %s: is this machine's clock right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return Adopted{}, fmt.Errorf("the certificate has a common name (%q) but no subjectAltName: Docker refuses such", leaf.Subject.CommonName)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return Adopted{}, fmt.Errorf("the certificate is not for %s: %w", host, err)
	}
	a := Adopted{Leaf: leaf, Chain: linked(served)}
	var err error
	if a.Root, err = issuerOf(leaf, slices.Concat(cas, served[1:]), host, at); err != nil {
		return Adopted{}, err
	}
	return a, nil
}

// Ends is when the first of leaf and root ends.
func (a Adopted) Ends() time.Time { return earlier(a.Leaf.NotAfter, a.Root.NotAfter) }

// linked returns the certificates after the first as far as each issued the one
// before it.
func linked(served []*x509.Certificate) []*x509.Certificate {
	for i := 1; i < len(served); i++ {
		if served[i-1].CheckSignatureFrom(served[i]) != nil {
			return served[1:i]
		}
	}
	return served[1:]
}

// issuerOf finds the one certificate that verifies leaf alone.
func issuerOf(leaf *x509.Certificate, candidates []*x509.Certificate, host string, at time.Time) (*x509.Certificate, error) {
	if selfSigned(leaf) {
		return leaf, VerifyAlone(leaf, leaf, host, at)
	}
	var why error
	for _, c := range candidates {
		if !Issued(c, leaf) || c.Equal(leaf) { // any leaf verifies itself
			continue
		}
		err := VerifyAlone(leaf, c, host, at)
		if err == nil {
			return c, nil
		}
		why = err
	}
	if why != nil {
		return nil, fmt.Errorf("its issuer %q does not verify it: %w", leaf.Issuer, why)
	}
	return nil, fmt.Errorf("its issuer %q is missing", leaf.Issuer)
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Issued says whether root is the one that leaf names as its issuer, by subject and,
// where both have them, by key identifiers. It proves nothing: see VerifyAlone. A
// self-signed leaf names itself.
func Issued(root, leaf *x509.Certificate) bool {
	if !bytes.Equal(leaf.RawIssuer, root.RawSubject) {
		return false
	}
	return len(leaf.AuthorityKeyId) == 0 || len(root.SubjectKeyId) == 0 || bytes.Equal(leaf.AuthorityKeyId, root.SubjectKeyId)
}

// vetAdopted says why a certificate that is known by its fingerprint cannot be
// trusted at the given time, or nil. What it may sign is nobody's choice any more.
func vetAdopted(cert *x509.Certificate, at time.Time) error {
	subject := cert.Subject.CommonName
	switch {
	case !at.Before(cert.NotAfter):
		return fmt.Errorf("the adopted certificate %q ended on %s", subject, cert.NotAfter.UTC().Format(time.RFC3339))
	case at.Before(cert.NotBefore):
		return fmt.Errorf("the adopted certificate %q is valid only from %s: is this host's clock right?", subject, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
