package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// renewLimit bounds one renewal call.
const renewLimit = 30 * time.Second

// identity returns who this host is now. Renewals change certificate and key, and
// a re-issued control CA is added, under the link's mu; everything else is fixed.
func (a *membership) identity() enrolment {
	a.link.mu.Lock()
	defer a.link.mu.Unlock()
	return a.enrolment
}

// changeIdentity changes what may change of the identity: durably first, then in
// memory. One change at a time, since each writes the whole file.
func (a *membership) changeIdentity(change func(*enrolment)) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	e := a.identity()
	change(&e)
	if err := a.store.write(identityFile, e); err != nil {
		return err
	}
	a.link.mu.Lock()
	defer a.link.mu.Unlock()
	a.enrolment.Cert, a.enrolment.Key, a.enrolment.Received, a.enrolment.ControlCAs = e.Cert, e.Key, e.Received, e.ControlCAs
	return nil
}

// renewRetry is how often a renewal is tried on a stream that works, at most: a
// third of an identity's life is left for it, so short lives have renewPart of
// theirs.
const (
	renewRetry = time.Hour
	renewPart  = 30
)

// renewal says when the identity is due, at two thirds of its life and a spread,
// and ends.
func (e enrolment) renewal() (due, ends time.Time, err error) {
	cert, err := x509.ParseCertificate(e.Cert)
	if err != nil {
		return due, ends, fmt.Errorf("this host's identity is damaged: %w", err)
	}
	return certs.RenewAt(cert, e.Received, certs.RenewAfter), cert.NotAfter, nil
}

// untilRenewal is how long a stream may be held.
func (l *link) untilRenewal() time.Duration {
	e := l.membership.identity()
	due, ends, err := e.renewal()
	if err != nil {
		return renewRetry // the next visit says it
	}
	least := min(renewRetry, max(ends.Sub(e.Received)/renewPart, time.Second))
	return max(due.Sub(l.membership.cfg.Now()), least)
}

// renewIfDue renews the identity when it is due.
func (l *link) renewIfDue(ctx context.Context) error {
	due, ends, err := l.membership.identity().renewal()
	if err != nil {
		return err
	}
	if l.membership.cfg.Now().Before(due) {
		return nil
	}
	if err := l.renew(ctx); err != nil {
		if l.membership.cfg.Now().Before(ends) {
			l.log.Warn("identity not renewed yet; trying again", "ends", ends, "err", err)
			return nil // still good
		}
		return err
	}
	return nil
}

// renew gets an identity for the next key. The key is on disk before its CSR
// leaves, and the server takes it for the current one when it is first used.
func (l *link) renew(ctx context.Context) error {
	a := l.membership
	e := a.identity()
	key, err := a.store.pendingKey("")
	if err != nil {
		return err
	}
	csr, err := request(key)
	if err != nil {
		return err
	}
	conn, err := a.dialServer(e)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the call's error is the one that counts
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	resp, err := pb.NewAgentServiceClient(conn).Renew(ctx, &pb.RenewRequest{Csr: csr})
	if err != nil {
		return err
	}
	cert, err := certs.ParseCertificate(resp.GetIdentity())
	if err != nil {
		return fmt.Errorf("renewed identity: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return fmt.Errorf("renewed identity: it is for another key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("renewed identity: %w", err)
	}
	err = a.changeIdentity(func(e *enrolment) {
		e.Cert, e.Key, e.Received = resp.GetIdentity(), der, a.cfg.Now().UTC()
	})
	if err != nil {
		return err
	}
	l.log.Info("identity renewed", "ends", cert.NotAfter)
	return a.store.remove(pendingFile)
}
