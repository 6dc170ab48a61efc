package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// trust says whether what the registry shows verifies against what the runtime reads:
// the pull itself, as far as TLS goes.
func (e *exam) trust(r runtime, n certs.Name, used string, c *contents, a answer, bypassed bool) {
	bad := Fail
	if bypassed || c.unverified {
		bad = Warn
	}
	switch {
	case a.dial != nil || c.broken() && !bypassed:
		return // said already
	case a.tls != nil:
		what := "no TLS with it"
		if a.plain {
			what = "what answers there speaks no TLS"
		}
		e.add("trust.chain", bad, r.title, "look at what listens at "+n.String(), "%s and %s: %s (%v)", r.title, n, what, a.tls)
		return
	}
	err := e.verify(a.chain, c.roots, n.Host)
	if err == nil {
		e.ok("trust.chain", r.title, "what %s shows verifies against what %s reads", n, r.title)
		return
	}
	if c.blind {
		bad = Warn
	}
	why, fix := e.refusal(a.chain, n, used, err)
	e.add("trust.chain", bad, r.title, fix, "what %s shows does not verify against what %s reads: %s", n, r.title, why)
}

// verify checks a chain as a runtime does: with the roots of the directory, and the
// system's.
func (e *exam) verify(chain, roots []*x509.Certificate, host string) error {
	err := certs.VerifyServed(chain, roots, host, e.Now())
	if err == nil || e.Root != "" || len(chain) == 0 {
		return err
	}
	pool, poolErr := x509.SystemCertPool()
	if poolErr != nil {
		return err
	}
	for _, root := range roots {
		pool.AddCert(root)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, sysErr := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, DNSName: host, CurrentTime: e.Now()}); sysErr != nil {
		return err
	}
	return nil
}

// refusal is why a chain does not verify, in words with a next step.
func (e *exam) refusal(chain []*x509.Certificate, n certs.Name, used string, err error) (why, fix string) {
	leaf := chain[0]
	now := e.Now()
	switch {
	case forAgents(chain):
		return "it is the server's for agents", onRegistryPort(n)
	case now.Before(leaf.NotBefore):
		return fmt.Sprintf("its certificate begins at %v, and it is %v here", leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)), "set this host's clock"
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("its certificate ended at %v, and it is %v here", leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)), "if this host's clock is right, look at `trustcast status` on the server"
	}
	var name x509.HostnameError
	if errors.As(err, &name) {
		return fmt.Sprintf("it is for %v", leaf.DNSNames), "does " + n.Host + " lead to the registry's address?"
	}
	b := e.Registry.Bundle
	switch {
	case e.Registry.Unseen != nil:
		return fmt.Sprintf("nothing here knows its issuer %q", leaf.Issuer.CommonName), asRoot
	case !e.Registry.Joined || len(b.Roots) == 0:
		return fmt.Sprintf("nothing here knows its issuer %q", leaf.Issuer.CommonName), "run the line that `trustcast token create` prints on the server"
	case certs.VerifyServed(chain, b.Roots, n.Host, now) == nil:
		if used == "" {
			return "it has no directory for the registry's CA", mend
		}
		return "the registry's CA is not in " + used, mend
	}
	return fmt.Sprintf("its issuer %q is not of this registry: something in between shows a certificate of its own, or the server was made anew", leaf.Issuer.CommonName),
		"look for a proxy on the way to " + n.String() + "; `trustcast status` on the server says what it serves"
}

// next says whether the chain of after a switch would verify, if one is offered.
func (e *exam) next(n certs.Name, a answer) {
	b := e.Registry.Bundle
	switch {
	case !e.Registry.Joined || len(b.Roots) == 0 || a.dial != nil:
	case a.refused:
		e.ok("trust.next", n.String(), "no other certificate is about to be served")
	case a.tls != nil:
		e.add("trust.next", Warn, n.String(), "look for a proxy on the way to "+n.String(), "the registry's next certificate cannot be asked for (%v)", a.tls)
	case a.protocol != nextProtocol:
		e.add("trust.next", Warn, n.String(), "look for a proxy on the way to "+n.String(), "what answers does not know %s: it is not the registry's own front", nextProtocol)
	default:
		if err := certs.VerifyServed(a.chain, b.Roots, n.Host, e.Now()); err != nil {
			e.add("trust.next", Warn, n.String(), "trustcast-agent status", "a rotation is under way, and its next certificate does not verify here yet: %v", err)
			return
		}
		e.ok("trust.next", n.String(), "a rotation is under way, and its next certificate verifies")
	}
}
