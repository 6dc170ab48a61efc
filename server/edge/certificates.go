package edge

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
)

var errNothingPublished = errors.New("no certificate was published yet")

// published is everything that is served at one moment; immutable.
type published struct {
	current *chains
	next    *chains // nil: nothing is staged
}

// chains are the pairs of one CA, by host name.
type chains struct {
	pairs  map[string]*tls.Certificate
	domain *tls.Certificate // for clients that ask for no name or an unknown one
	config *tls.Config
}

// Publish makes the edge serve current, and offer next (nil: nothing is staged)
// under NextProtocol. Both map a host name, lower-case and without port, to its
// leaf followed by the predecessors, and have the domain among the names. New
// connections get them at once, established ones carry on.
//
// Every pair is checked first: the key is the leaf's, the leaf has the name and
// is valid now, each certificate is issued by the one after it. On any error
// nothing changes, neither current nor next. Only a current leaf may have ended, or
// be valid later by this machine's clock: serving it is no worse than serving
// nobody, its clients have clocks of their own, and a rotation must be able to
// replace it.
func (e *Edge) Publish(current, next map[string]*tls.Certificate) error {
	e.publishing.Lock()
	defer e.publishing.Unlock()
	now := time.Now()
	cur, err := e.served(current), error(nil)
	if cur == nil {
		cur, err = e.newChains(current, http1Protocol, now)
	}
	if err != nil {
		return fmt.Errorf("serve new certificates: %w", err)
	}
	p := &published{current: cur}
	if next != nil {
		if p.next, err = e.newChains(next, NextProtocol, now); err != nil {
			return fmt.Errorf("offer the next certificates: %w", err)
		}
	}
	e.certs.Store(p)
	return nil
}

// served returns what is served now if it is the same as pairs, else nil. It was checked
// when it was published, and checking predecessors again takes longest just when hosts
// wait to be told that a rotation has begun.
func (e *Edge) served(pairs map[string]*tls.Certificate) *chains {
	p := e.certs.Load()
	if p == nil || len(p.current.pairs) != len(pairs) {
		return nil
	}
	for name, pair := range pairs {
		own := p.current.pairs[name]
		if own == nil || pair == nil || !slices.EqualFunc(own.Certificate, pair.Certificate, bytes.Equal) || checkKey(pair.PrivateKey, own.Leaf) != nil {
			return nil
		}
	}
	return p.current
}

// Serving returns what the last successful Publish made the edge serve and
// offer; nil where there is nothing. The certificates must not be changed.
func (e *Edge) Serving() (current, next map[string]*tls.Certificate) {
	p := e.certs.Load()
	if p == nil {
		return nil, nil
	}
	if p.next != nil {
		next = maps.Clone(p.next.pairs)
	}
	return maps.Clone(p.current.pairs), next
}

func (e *Edge) newChains(pairs map[string]*tls.Certificate, protocol string, now time.Time) (*chains, error) {
	c := &chains{pairs: make(map[string]*tls.Certificate, len(pairs))}
	for name, pair := range pairs {
		leaf, err := check(pair, name, now, protocol)
		if err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", name, err)
		}
		own := *pair // a copy, so that its owner can do what it likes
		own.Leaf = leaf
		c.pairs[name] = &own
	}
	c.domain = c.pairs[e.cfg.Domain]
	if c.domain == nil {
		return nil, fmt.Errorf("there is none for the domain %s", e.cfg.Domain)
	}
	c.config = c.newConfig(protocol)
	return c, nil
}

// pick chooses by the name that the client asks for. A client that dials an
// address asks for none: it gets that address's pair if there is one.
func (c *chains) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	if name == "" && len(c.pairs) > 1 {
		if tcp, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			name = tcp.IP.String()
		}
	}
	if pair, ok := c.pairs[name]; ok {
		return pair, nil
	}
	return c.domain, nil
}

// check says why pair cannot be served for name, and returns its leaf.
func check(pair *tls.Certificate, name string, now time.Time, protocol string) (*x509.Certificate, error) {
	if pair == nil || len(pair.Certificate) == 0 {
		return nil, errors.New("it is empty")
	}
	chain := make([]*x509.Certificate, len(pair.Certificate))
	for i, der := range pair.Certificate {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d of its chain does not parse: %w", i, err)
		}
	}
	leaf := chain[0]
	if err := checkKey(pair.PrivateKey, leaf); err != nil {
		return nil, err
	}
	switch {
	case name != strings.ToLower(name):
		return nil, errors.New("its name has upper-case letters")
	case now.Before(leaf.NotBefore) && protocol == NextProtocol:
		return nil, fmt.Errorf("it is valid only from %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter) && protocol == NextProtocol:
		return nil, fmt.Errorf("it ended on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := leaf.VerifyHostname(name); err != nil && !passWrongName(protocol) {
		return nil, err
	}
	return leaf, checkLinks(chain, now)
}

// inLife is now, or the leaf's nearest day if that is outside of its life: its
// dates were judged.
func inLife(leaf *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.After(leaf.NotAfter):
		return leaf.NotAfter
	case now.Before(leaf.NotBefore):
		return leaf.NotBefore
	}
	return now
}

func checkKey(key crypto.PrivateKey, leaf *x509.Certificate) error {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("its private key is of type %T and cannot sign", key)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return errors.New("its private key is not the leaf's")
	}
	return nil
}

// checkLinks checks that each certificate is issued by the one after it, and
// then the leaf as a client does that trusts only the oldest CA of the chain. A
// link out of its dates is no error and ends that second check: clients pass
// over it, and refusing the chain would keep a good leaf from being served.
func checkLinks(chain []*x509.Certificate, now time.Time) error {
	reach := 0 // the last link that a client can get to
	for i, issuer := range chain[1:] {
		if !bytes.Equal(chain[i].RawIssuer, issuer.RawSubject) {
			return fmt.Errorf("link %d of its chain is %q, but what it should have issued names %q", i+1, issuer.Subject, chain[i].Issuer)
		}
		if err := chain[i].CheckSignatureFrom(issuer); err != nil { // a CA that may sign, and did
			return fmt.Errorf("link %d of its chain, %q, did not issue the certificate before it: %w", i+1, issuer.Subject, err)
		}
		if reach == i && !now.Before(issuer.NotBefore) && !now.After(issuer.NotAfter) {
			reach = i + 1
		}
	}
	if reach == 0 {
		return nil
	}
	oldest, between := x509.NewCertPool(), x509.NewCertPool()
	oldest.AddCert(chain[reach])
	for _, link := range chain[1:reach] {
		between.AddCert(link)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: oldest, Intermediates: between, CurrentTime: inLife(chain[0], now),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("a client that trusts only %q would refuse it: %w", chain[reach].Issuer, err)
	}
	return nil
}
