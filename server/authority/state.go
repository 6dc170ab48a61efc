package authority

import (
	"crypto/x509"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// Certificate describes one registry CA for people.
type Certificate struct {
	// Role is "active", "other", "retired" (in the bundle, its key destroyed) or
	// "predecessor".
	Role string
	Cert *x509.Certificate
}

// State is all that status and `ca show` print.
type State struct {
	Rotation Rotation
	Bundle   certs.Bundle
	// Serving is what the edge presents: the issuing CA, the end of the leaf
	// that ends first and the number of predecessors.
	Issuer     *x509.Certificate
	IssuerLife Life
	// Adopted: the issuer was taken over with the registry.
	Adopted      bool
	LeafEnds     time.Time
	Predecessors int
	// Other is the CA that comes or goes, nil for none.
	Other   *x509.Certificate
	Waiting []Wait
	// Frozen says why nothing happens any more; "" when it does. Stuck is why the
	// last step failed; it is tried again.
	Frozen, Stuck string
	Certificates  []Certificate
	History       []Entry
}

// State returns the state at one moment.
func (a *Authority) State() (State, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec, r := a.rec, a.rec.Rotation
	s := State{Rotation: r, Bundle: a.wanted.Load().Bundle, History: rec.History, Predecessors: len(a.serving.Chain)}
	v := a.view(time.Now())
	s.Waiting, s.Frozen, s.Stuck = r.Waiting(v), r.Frozen(v), a.complaint
	if s.Stuck != "" && r.Phase != Idle {
		s.Waiting = append(s.Waiting, Wait{Host: "server", Reason: "is stuck: " + s.Stuck, Advice: "mend that on the server; it tries again by itself"})
	}
	for _, ca := range rec.CAs {
		cert, err := x509.ParseCertificate(ca.Cert)
		if err != nil {
			return State{}, err
		}
		role := "active"
		switch {
		case ca.ID == r.Other:
			role = "other"
			s.Other = cert
		case ca.ID != r.Active:
			role = "retired"
		}
		if ca.ID == a.serving.Active {
			s.issue(rec, ca, cert)
		}
		s.Certificates = append(s.Certificates, Certificate{Role: role, Cert: cert})
	}
	for _, l := range rec.Links {
		cert, err := x509.ParseCertificate(l.Cert)
		if err != nil {
			return State{}, err
		}
		s.Certificates = append(s.Certificates, Certificate{Role: "predecessor", Cert: cert})
	}
	for _, l := range rec.Leaves {
		leaf, err := x509.ParseCertificate(l.Cert)
		if err != nil {
			return State{}, err
		}
		if l.CA == r.Active && (s.LeafEnds.IsZero() || leaf.NotAfter.Before(s.LeafEnds)) {
			s.LeafEnds = leaf.NotAfter
		}
	}
	if s.Issuer == nil { // before the first publish
		cert, err := rec.cert(r.Active)
		if err != nil {
			return State{}, err
		}
		ca, err := rec.ca(r.Active)
		if err != nil {
			return State{}, err
		}
		s.issue(rec, ca, cert)
	}
	return s, nil
}

func (s *State) issue(rec record, ca caRecord, cert *x509.Certificate) {
	s.Issuer, s.IssuerLife, s.Adopted = cert, rec.life(ca, cert), !ca.Adopted.IsZero()
}

// Verdict is what a host's evidence amounts to.
type Verdict struct {
	// Complete: it has the wanted bundle and everything in it works.
	Complete bool
	// Refused: it looked and said no. Lack says what is missing.
	Refused bool
	Lack    string
}

// Verdicts judges the evidence of each host, by ID.
func (a *Authority) Verdicts() map[string]Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.view(time.Now())
	verdicts := map[string]Verdict{}
	for _, h := range v.Hosts {
		lack, refused := a.rec.Rotation.judge(h, v)
		verdicts[h.ID] = Verdict{Complete: lack == "", Refused: refused, Lack: lack}
	}
	return verdicts
}
