//go:build linux

package fleet_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// impostor answers on a port of the bridge with a certificate of its own, or, as a
// proxy, passes connections on unless it intercepts them.
type impostor struct {
	lis net.Listener
	cfg *tls.Config
	wg  sync.WaitGroup
}

func newImpostor(t *testing.T, f *fleet, serve func(*impostor, net.Conn)) *impostor {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"registry.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	template.Subject.CommonName = "inspected by your company"
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	lis, err := net.Listen("tcp", f.run.addr(bridgeAddr)+":0")
	must(t, err)
	i := &impostor{lis: lis, cfg: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	i.wg.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return // closed
			}
			i.wg.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				serve(i, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = lis.Close()
		i.wg.Wait()
	})
	return i
}

func (i *impostor) address() string { return i.lis.Addr().String() }

// intercept speaks TLS with the impostor's certificate.
func (i *impostor) intercept(conn net.Conn) {
	_ = tls.Server(conn, i.cfg).Handshake()
}

// proxyTo answers CONNECT and goes on with next.
func proxyTo(next func(*impostor, net.Conn)) func(*impostor, net.Conn) {
	return func(i *impostor, conn net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err == nil {
			next(i, conn)
		}
	}
}

// testImpostor leads the host's connections to something that is not the registry.
func (p *patient) testImpostor(t *testing.T) {
	i := newImpostor(t, p.fleet, (*impostor).intercept)
	undo, err := p.net.redirect(p.h.name, p.server.listen(registryPort), i.address())
	must(t, err)
	d := p.agree(t, true)
	p.mustName(t, d, "trust.chain")
	if !strings.Contains(d.String(), "inspected by your company") {
		t.Errorf("nobody says who is in between: %v", d)
	}
	must(t, undo())
	p.agree(t, false)
}

// testProxies starts the engine behind several proxies.
func (p *patient) testProxies(t *testing.T) {
	good := newImpostor(t, p.fleet, proxyTo(func(_ *impostor, conn net.Conn) {
		server, err := net.DialTimeout("tcp", p.server.listen(registryPort), 5*time.Second)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(server, conn)
			_ = server.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(conn, server)
		_ = conn.Close() // ends the other direction
		<-done
	}))
	bad := newImpostor(t, p.fleet, proxyTo((*impostor).intercept))
	nobody := newImpostor(t, p.fleet, (*impostor).intercept)
	must(t, nobody.lis.Close())
	for _, c := range []struct {
		name  string
		env   []string
		id    string // of what is not ok; "" for nothing
		fails bool
	}{
		{"a proxy that passes on", []string{"HTTPS_PROXY=http://" + good.address()}, "engine.proxy", false},
		{"a proxy that intercepts", []string{"https_proxy=http://" + bad.address()}, "trust.chain", true},
		{"a proxy that is away", []string{"HTTPS_PROXY=http://" + nobody.address()}, "engine.proxy", true},
		{"a proxy for others", []string{"HTTPS_PROXY=http://" + bad.address(), "NO_PROXY=example.com,.test"}, "", false},
		{"a proxy for HTTP alone", []string{"HTTP_PROXY=http://" + bad.address()}, "", false},
	} {
		must(t, p.h.stopEngine())
		p.h.env = c.env
		must(t, p.h.startEngine())
		d := p.agree(t, c.fails)
		if c.id != "" {
			p.mustName(t, d, c.id)
		} else if d.names("engine.proxy") {
			t.Errorf("%s: %v", c.name, d)
		}
	}
}
