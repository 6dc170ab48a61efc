package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"github.com/trustcast/trustcast/certs"
)

const (
	// lookMost is how long Run waits at most: clocks are set meanwhile, and nobody
	// can connect while the identity disagrees with them.
	lookMost = 10 * time.Minute
	// lookPart of a life is how soon what failed or paused is tried again when
	// lives are short; a third of a life is left for it.
	lookPart = 30
	// lookLeast keeps Run from spinning.
	lookLeast = time.Second
)

// Run renews what is old enough until ctx ends: the server's identity at two
// thirds of its life, and the control CA's certificate at half of its own. An
// error of the world (a full disk) is logged and tried again.
func (i *Identity) Run(ctx context.Context) error {
	for {
		if !i.cfg.Paused() {
			if err := i.renewDue(time.Now()); err != nil {
				i.cfg.Log.Error("not renewed; trying again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(i.untilDue(time.Now())):
		}
	}
}

// renewDue renews what is due, the CA before what it signs.
func (i *Identity) renewDue(now time.Time) error {
	i.mu.Lock()
	caDue, serverDue := i.due()
	var reissued bool
	var errs []error
	if i.needsCA(caDue, now) {
		err := i.reissue(now)
		reissued = err == nil
		errs = append(errs, err)
	}
	if !now.Before(serverDue) || now.Before(i.server.Leaf.NotBefore) { // before: made while the clock was ahead
		errs = append(errs, i.renewServer(now))
	}
	i.mu.Unlock()
	if reissued {
		i.cfg.Reissued()
	}
	return errors.Join(errs...)
}

// due returns when control CA and server identity are replaced. A life that is
// shorter now than when the identity was made counts at once. The caller holds mu.
func (i *Identity) due() (ca, server time.Time) {
	ca = certs.RenewAt(i.ca, i.caMade(), certs.ReissueAfter)
	server = certs.RenewAt(i.server.Leaf, i.control.ServerMade, certs.RenewAfter)
	if sooner := i.control.ServerMade.Add(time.Duration(certs.RenewAfter * float64(i.cfg.ServerLife))); sooner.Before(server) && i.server.Leaf.NotAfter.Sub(i.control.ServerMade) > i.cfg.ServerLife {
		server = sooner
	}
	return ca, server
}

// needsCA: the CA is old enough and another would end later. The caller holds mu.
func (i *Identity) needsCA(due, now time.Time) bool {
	return !now.Before(due) && now.Add(i.cfg.ControlLife).After(i.ca.NotAfter)
}

func (i *Identity) caMade() time.Time {
	if i.control.CAMade.IsZero() {
		return i.ca.NotBefore.Add(certs.CABackdate)
	}
	return i.control.CAMade
}

// untilDue is how long Run may wait.
func (i *Identity) untilDue(now time.Time) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	ca, server := i.due()
	next := server
	if ca.Before(next) && now.Add(i.cfg.ControlLife).After(i.ca.NotAfter) {
		next = ca
	}
	wait := next.Sub(now)
	if wait <= 0 { // it failed, or is paused
		wait = min(i.cfg.ServerLife, i.cfg.ControlLife) / lookPart
	}
	return min(max(wait, lookLeast), lookMost)
}

// reissue gives the control CA a new certificate: the same key and subject, and
// valid from as early as the first, so that it also verifies identities that
// ended before it was made. The caller holds mu.
func (i *Identity) reissue(now time.Time) error {
	c := i.control
	from := now.Add(-certs.CABackdate)
	if i.ca.NotBefore.Before(from) {
		from = i.ca.NotBefore
	}
	der, err := c.signCA(i.caKey, from, now.Add(i.cfg.ControlLife))
	if err != nil {
		return fmt.Errorf("re-issue control CA: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("re-issue control CA: %w", err)
	}
	c.CA, c.CAMade = der, now
	rev, err := i.cfg.Records.Put(recordName, i.rev, c)
	if err != nil {
		return fmt.Errorf("re-issue control CA: %w", err)
	}
	i.control, i.rev, i.ca = c, rev, ca
	i.cfg.Log.Info("control CA re-issued with the same key", "ends", ca.NotAfter)
	return i.loadServer()
}

// signCA makes the CA's certificate; it is signed by its own key.
func (c control) signCA(key *ecdsa.PrivateKey, from, to time.Time) ([]byte, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "trustcast control CA " + c.FleetID[:8]},
		NotBefore:             from,
		NotAfter:              to,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
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
	der, err := i.sign(key.Public(), "server", "/server", x509.ExtKeyUsageServerAuth, now, i.cfg.ServerLife)
	if err != nil {
		return fmt.Errorf("renew server identity: %w", err)
	}
	c.Server, c.ServerKey, c.ServerMade = der, keyID, now
	rev, err := i.cfg.Records.Put(recordName, i.rev, c)
	if err != nil {
		return fmt.Errorf("renew server identity: %w", err)
	}
	i.control, i.rev = c, rev
	if err := i.loadServer(); err != nil || old == "" {
		return err
	}
	return i.cfg.Keys.Destroy(old)
}

// Life is when a certificate was made and when it ends.
type Life struct{ Made, Ends time.Time }

// Lives returns those of the control CA and of the server's identity.
func (i *Identity) Lives() (ca, server Life) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return Life{i.caMade(), i.ca.NotAfter}, Life{i.control.ServerMade, i.server.Leaf.NotAfter}
}
