package crash

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	cancel context.CancelFunc
	done   sync.WaitGroup
	good   atomic.Int64

	mu       sync.Mutex
	failures []error // guarded by mu
}

func (s *site) startProbe() *probe {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probe{site: s, cancel: cancel}
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
		err := p.site.handshake(ctx, i)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if broken != nil && p.site.listening() == brokenIn {
				p.failed(fmt.Errorf("%s, while the server listened: %w", hostName(i), broken))
			}
			broken = nil
			p.good.Add(1)
		case !isBroken(err):
			p.failed(fmt.Errorf("%s: %w", hostName(i), err))
		case epoch%2 == 1 && broken == nil:
			broken, brokenIn = err, epoch
		}
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

// handshake is what a container engine of a host does first. Beyond that, the
// leaf must verify without its predecessors against a root that the host has:
// they would hide a switch that came too early.
func (s *site) handshake(ctx context.Context, host int) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	before, err := s.roots(host)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, root := range before {
		pool.AddCert(root)
	}
	name, _, err := net.SplitHostPort(s.registry)
	if err != nil {
		return err
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: name, NextProtos: []string{"http/1.1"}}}
	conn, err := d.DialContext(ctx, "tcp", s.registry)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // only the handshake counts
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	after, err := s.roots(host) // the host may have been given the root meanwhile
	if err != nil {
		return err
	}
	for _, root := range append(before, after...) {
		if certs.VerifyAlone(leaf, root, name, time.Now()) == nil {
			return nil
		}
	}
	return fmt.Errorf("%q serves, and only the predecessors make up for it: the host has %s", leaf.Issuer.CommonName, subjects(after))
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
