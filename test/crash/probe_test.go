package crash

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// every is how often a probe is made: often enough to be in each phase, rare
// enough to leave the cores to the programs.
const every = 10 * time.Millisecond

// probe is a loop of handshakes by clients that trust only what the agents have
// installed, one host after the other.
type probe struct {
	site   *site
	event  event
	cancel context.CancelFunc
	done   sync.WaitGroup
	good   atomic.Int64

	mu       sync.Mutex
	failures []error // guarded by mu
}

func (s *site) startProbe(e event) *probe {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probe{site: s, event: e, cancel: cancel}
	p.done.Go(func() { p.loop(ctx) })
	s.close = append(s.close, func() { _ = p.stop() })
	return p
}

// loop probes until ctx ends. A connection that breaks is excused only if the
// server ended before another one succeeded: its process closes what it has open.
func (p *probe) loop(ctx context.Context) {
	pace := time.NewTicker(every)
	defer pace.Stop()
	var broken error
	brokenIn := int64(0)
	for i := 0; ; i = (i + 1) % agents {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		epoch := p.site.listening()
		seen, err := p.site.handshake(ctx, i)
		if p.event.want.stolen {
			p.thief(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if broken != nil && p.site.listening() == brokenIn {
				p.failed(fmt.Errorf("%s, while the server listened: %w", hostName(i), broken))
			}
			broken = nil
			p.good.Add(1)
		case !isBroken(err) && p.event.excused != nil && p.event.excused(p.site, i, seen):
		case !isBroken(err):
			p.failed(fmt.Errorf("%s: %w", hostName(i), err))
		case epoch%2 == 1 && broken == nil:
			broken, brokenIn = err, epoch
		}
	}
}

// thief is a client that trusts the stolen CA alone: nobody but that CA's own
// leaf must be able to speak to it.
func (p *probe) thief(ctx context.Context) {
	leaf, err := p.site.greet(ctx, p.site.first.root)
	if err == nil && p.site.alone(leaf, p.site.first.root) != nil {
		p.failed(fmt.Errorf("a client that trusts the stolen CA alone is served by %q", leaf.Issuer.CommonName))
	}
}

func (p *probe) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = append(p.failures, err)
}

// stop ends the loop and returns what failed.
func (p *probe) stop() error {
	p.cancel()
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.failures); n > 3 {
		return fmt.Errorf("%d handshakes failed, first: %w", n, errors.Join(p.failures[:3]...))
	}
	return errors.Join(p.failures...)
}

// isBroken: there was no server at the other end, or not to the end.
func isBroken(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// handshakeLimit is far above what a loaded machine needs.
const handshakeLimit = 20 * time.Second

// handshake is what a container engine of a host does first, with the roots that
// it has seen on disk. Beyond that, the leaf must verify without its predecessors
// against a root that the host has: they would hide a switch that came too early.
func (s *site) handshake(ctx context.Context, host int) (seen []*x509.Certificate, err error) {
	if seen, err = s.roots(host); err != nil {
		return nil, err
	}
	leaf, err := s.greet(ctx, seen...)
	if err != nil {
		return seen, err
	}
	after, err := s.roots(host) // the host may have been given the root meanwhile
	if err != nil {
		return seen, err
	}
	for _, root := range append(slices.Clone(seen), after...) {
		if s.alone(leaf, root) == nil {
			return seen, nil
		}
	}
	return seen, fmt.Errorf("%q serves, and only the predecessors make up for it: the host has %s", leaf.Issuer.CommonName, subjects(after))
}

// greet shakes hands with the registry as a client that trusts some roots, and
// returns the leaf that it was shown.
func (s *site) greet(ctx context.Context, roots ...*x509.Certificate) (leaf *x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: s.host, NextProtos: []string{"http/1.1"}}}
	conn, err := d.DialContext(ctx, "tcp", s.registry)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // only the handshake counts
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// alone says why a root does not verify a leaf without predecessors, or nil.
func (s *site) alone(leaf, root *x509.Certificate) error {
	return certs.VerifyAlone(leaf, root, s.host, time.Now())
}

// roots reads what is installed on a host.
func (s *site) roots(host int) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(s.installed(host))
	if err != nil {
		return nil, err
	}
	return certs.ParsePEM(data)
}

func subjects(list []*x509.Certificate) (names []string) {
	for _, c := range list {
		names = append(names, c.Subject.CommonName)
	}
	return names
}
