package agent

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// maxControlCAs bounds the certificates of the control CA that are taken and
// kept; each lives ten years.
const maxControlCAs = 4

// parseControlCAs reads certificates of the control CA from the server. Whether
// they are of the key that this host pinned, onlyPinned says.
func parseControlCAs(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) > maxControlCAs {
		return nil, fmt.Errorf("it has %d control CAs; at most %d are read", len(ders), maxControlCAs)
	}
	var cas []*x509.Certificate
	for _, der := range ders {
		ca, err := certs.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("control CA: %w", err)
		}
		cas = append(cas, ca)
	}
	return cas, nil
}

// reissued says why cert is no certificate of the CA whose key one of pinned has,
// or nil. The key is what joining fixed; its certificate may be replaced, also
// after the one that this host has ended.
func reissued(cert *x509.Certificate, pinned []*x509.Certificate) error {
	sameKey := func(p *x509.Certificate) bool { return certs.Pin(p) == certs.Pin(cert) }
	switch {
	case !slices.ContainsFunc(pinned, sameKey):
		return errors.New("the control CA has another key than the one that this host joined")
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("what is called the control CA is no CA")
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return fmt.Errorf("the control CA is not signed by itself: %w", err)
	}
	return nil
}

// takeControlCAs keeps re-issued certificates of the control CA durably, and
// drops ended ones. One of another key is refused: only a new enrolment brings
// that.
func (a *membership) takeControlCAs(offered []*x509.Certificate) error {
	kept, err := a.identity().roots()
	if err != nil {
		return err
	}
	next, err := renewRoots(kept, offered, a.cfg.Now())
	if err != nil {
		return fmt.Errorf("wanted state refused: %w", err)
	}
	same := func(x, y *x509.Certificate) bool { return x.Equal(y) }
	if slices.EqualFunc(next, kept, same) {
		return nil
	}
	a.log.Info("re-issued control CA taken", "ends", next[0].NotAfter)
	return a.changeIdentity(func(e *enrolment) {
		e.ControlCAs = nil
		for _, ca := range next {
			e.ControlCAs = append(e.ControlCAs, bytes.Clone(ca.Raw))
		}
	})
}

// renewRoots returns the control CAs to keep, the one that ends last first: those
// kept and offered, without ended ones, but one at least: its key is the pin.
func renewRoots(kept, offered []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	all := slices.Clone(kept)
	for _, ca := range offered {
		if slices.ContainsFunc(all, ca.Equal) {
			continue
		}
		if err := reissued(ca, kept); err != nil {
			return nil, err
		}
		all = append(all, ca)
	}
	slices.SortStableFunc(all, func(x, y *x509.Certificate) int { return y.NotAfter.Compare(x.NotAfter) })
	last := 1
	for last < min(len(all), maxControlCAs) && now.Before(all[last].NotAfter) {
		last++
	}
	return all[:last], nil
}

// roots are the control CAs of an enrolment.
func (e enrolment) roots() ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for _, der := range e.ControlCAs {
		ca, err := certs.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("this host's control CA is damaged: %w", err)
		}
		roots = append(roots, ca)
	}
	return roots, nil
}

// withShown adds what the server shows of the pinned key: the certificate that
// this host has may have ended while it was away.
func withShown(roots, chain []*x509.Certificate) []*x509.Certificate {
	all := slices.Clone(roots)
	for _, cert := range chain[min(1, len(chain)):] {
		if reissued(cert, roots) == nil {
			all = append(all, cert)
		}
	}
	return all
}
