package identity

import (
	"crypto/ecdsa"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

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
	if renewing && now.After(cert.NotAfter) && now.Before(cert.NotAfter.Add(RenewGrace)) {
		at = cert.NotAfter // judged as on its last day
	}
	if now.After(cert.NotAfter) && at.Equal(now) {
		return Host{}, fmt.Errorf("%w on %s", ErrExpired, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	pool := x509.NewCertPool()
	i.mu.Lock()
	pool.AddCert(i.ca)
	i.mu.Unlock()
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return Host{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return i.useKey(id, cert)
}

// Bearer is whoever goes on showing one certificate over a long stream. It is not
// safe for concurrent use.
type Bearer struct {
	Cert *x509.Certificate
	// signer is the certificate of the control CA that has signed Cert, as the last
	// check found; nil before the first.
	signer *x509.Certificate
}

// AuthenticateAgain judges each message of a stream as Authenticate judges a call. The
// signature, which is most of the work and cannot change, is checked once.
func (i *Identity) AuthenticateAgain(b *Bearer, now time.Time) (Host, error) {
	i.mu.Lock()
	ca := i.ca
	i.mu.Unlock()
	if b.signer == ca && b.signer != nil && within(b.Cert, now) && within(ca, now) {
		id, err := i.hostID(b.Cert)
		if err != nil {
			return Host{}, err
		}
		return i.useKey(id, b.Cert)
	}
	h, err := i.Authenticate(b.Cert, now, false)
	if err == nil {
		b.signer = ca
	}
	return h, err
}

// within says whether a certificate has begun and has not ended.
func within(cert *x509.Certificate, now time.Time) bool {
	return !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
}

func (i *Identity) hostID(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("%w: the certificate names no host", ErrUnknown)
	}
	u := cert.URIs[0]
	id, ok := strings.CutPrefix(u.Path, "/host/")
	if u.Scheme != "trustcast" || u.Host != i.fleet || !ok {
		return "", fmt.Errorf("%w: the certificate is for %s", ErrUnknown, u.Redacted())
	}
	return id, nil
}

// useKey checks that a verified certificate's key is one of the host's and
// promotes a next key.
func (i *Identity) useKey(id string, cert *x509.Certificate) (Host, error) {
	key := keyOf(cert.RawSubjectPublicKeyInfo)
	i.mu.Lock()
	defer i.mu.Unlock()
	h, ok := i.hosts[id]
	same := func(recorded string) bool {
		return recorded != "" && subtle.ConstantTimeCompare([]byte(recorded), []byte(key)) == 1
	}
	switch {
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
	if adopted, is, err := i.adopt(id, key, cert); is || err != nil {
		return adopted, err
	}
	if !ok {
		return Host{}, ErrUnknown
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
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign identity of %s: %w", h.Name, err)
	}
	h.Made, h.Ends = now.UTC(), signed.NotAfter
	if err := i.put(h); err != nil {
		return nil, err
	}
	return der, nil
}
