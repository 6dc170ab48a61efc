package doctor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// nextProtocol is what the edge answers with its future chain.
const nextProtocol = "trustcast-next/1"

// largestHead of an answer is read, in bytes: who answers is not known yet.
const largestHead = 64 << 10

// ways is what the network showed.
type ways struct {
	to     map[certs.Name]way
	server error                // of the port for agents
	peers  map[string]gossipWay // by address
}

// gossipWay is why a member does not answer; nil where it does.
type gossipWay struct{ tcp, udp error }

// way is the way to the registry under one name.
type way struct {
	addrs     []netip.Addr
	lookup    error
	direct    answer
	next      answer
	elsewhere error             // of the fallback address, tried when the name does not resolve
	proxied   map[string]answer // by the proxy's URL
}

// through is what answered directly, or through a proxy.
func (w way) through(via *url.URL) answer {
	if via == nil {
		return w.direct
	}
	return w.proxied[via.String()]
}

// answer is what a port showed.
type answer struct {
	dial, tls error // where it ended
	plain     bool  // something answered that is no TLS
	chain     []*x509.Certificate
	protocol  string
	refused   bool // TLS was refused for want of a protocol in common
	code      int  // of GET /v2/; 0 without an answer
	skew      time.Duration
}

// explore asks the network everything at once.
func (e *exam) explore(ctx context.Context) ways {
	all := ways{to: map[certs.Name]way{}, peers: map[string]gossipWay{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range e.Registry.Names {
		wg.Go(func() {
			w := e.walk(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			all.to[n] = w
		})
	}
	if e.Registry.Joined {
		wg.Go(func() { all.server = e.knock(ctx, e.Registry.Server) })
	}
	if len(e.Registry.GossipKeys) > 0 {
		for _, peer := range e.Registry.Peers[:min(3, len(e.Registry.Peers))] {
			wg.Go(func() {
				w := e.askGossip(ctx, peer)
				mu.Lock()
				defer mu.Unlock()
				all.peers[peer] = w
			})
		}
	}
	wg.Wait()
	return all
}

// walk looks a name up and asks who is there, directly and through each proxy that a
// runtime uses.
func (e *exam) walk(ctx context.Context, n certs.Name) way {
	w := way{proxied: map[string]answer{}}
	lookup, cancel := context.WithTimeout(ctx, stepLimit)
	w.addrs, w.lookup = e.Lookup(lookup, "ip", n.Host)
	cancel()
	address := net.JoinHostPort(n.Host, strconv.Itoa(n.Port))
	var mu sync.Mutex
	var wg sync.WaitGroup
	if w.lookup == nil {
		wg.Go(func() { w.direct = e.ask(ctx, n, address, nil) })
		wg.Go(func() { w.next = e.askNext(ctx, n, address) })
	} else {
		w.direct.dial = w.lookup
		if e.Registry.Fallback != "" {
			wg.Go(func() { w.elsewhere = e.knock(ctx, e.Registry.Fallback) })
		}
	}
	asked := map[string]bool{}
	for _, r := range e.runtimes() {
		via := e.proxyOf(r, n)
		if via == nil || asked[via.String()] {
			continue
		}
		asked[via.String()] = true
		wg.Go(func() {
			a := e.ask(ctx, n, address, via)
			mu.Lock()
			defer mu.Unlock()
			w.proxied[via.String()] = a
		})
	}
	wg.Wait()
	return w
}

// knock opens a connection and closes it.
func (e *exam) knock(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	conn, err := e.Dial(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // nothing was said
	}
	return err
}

// askGossip asks a member on both its ways at once.
func (e *exam) askGossip(ctx context.Context, peer string) (w gossipWay) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { w.tcp = e.Ping(ctx, "tcp", peer, e.Registry.GossipKeys) })
	wg.Go(func() { w.udp = e.Ping(ctx, "udp", peer, e.Registry.GossipKeys) })
	wg.Wait()
	return w
}

// ask makes a handshake as a pull would, trusting whatever is shown, and asks GET /v2/.
func (e *exam) ask(ctx context.Context, n certs.Name, address string, via *url.URL) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	conn, err := e.connect(ctx, address, via)
	if err != nil {
		return answer{dial: err}
	}
	defer func() { _ = conn.Close() }() // what was said counts
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // the context ends the dial and the handshake anyway
	}
	client := tls.Client(conn, looking(n.Host))
	if err := client.HandshakeContext(ctx); err != nil {
		header := tls.RecordHeaderError{}
		return answer{tls: err, plain: errors.As(err, &header)}
	}
	a.chain = client.ConnectionState().PeerCertificates
	begin := e.Now()
	a.code, a.skew = e.ping(client, n, begin)
	return a
}

// looking accepts every certificate, since each runtime trusts something else: trust
// judges what was shown.
func looking(host string, protocols ...string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: protocols} //nolint:gosec // judged by trust
}

// ping asks for /v2/ without signing in; the code is 0 when nothing came.
func (e *exam) ping(conn net.Conn, n certs.Name, begin time.Time) (code int, skew time.Duration) {
	_, err := fmt.Fprintf(conn, "GET /v2/ HTTP/1.1\r\nHost: %s\r\nUser-Agent: trustcast-agent-doctor\r\nConnection: close\r\n\r\n", n)
	if err != nil {
		return 0, 0
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, largestHead)), nil)
	if err != nil {
		return 0, 0
	}
	_ = resp.Body.Close() // its head is enough
	end := e.Now()
	if theirs, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		ours := begin.Add(end.Sub(begin) / 2)
		skew = ours.Sub(theirs.Add(time.Second / 2)) // the header has whole seconds
	}
	return resp.StatusCode, skew
}

// askNext asks for the chain of after a switch.
func (e *exam) askNext(ctx context.Context, n certs.Name, address string) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	conn, err := e.Dial(ctx, "tcp", address)
	if err != nil {
		return answer{dial: err}
	}
	defer func() { _ = conn.Close() }() // only the handshake counts
	client := tls.Client(conn, looking(n.Host, nextProtocol))
	if err := client.HandshakeContext(ctx); err != nil {
		return answer{tls: err, refused: strings.Contains(err.Error(), "no application protocol")}
	}
	s := client.ConnectionState()
	return answer{chain: s.PeerCertificates, protocol: s.NegotiatedProtocol}
}

// connect dials, through an HTTP proxy if there is one.
func (e *exam) connect(ctx context.Context, address string, via *url.URL) (net.Conn, error) {
	if via == nil {
		return e.Dial(ctx, "tcp", address)
	}
	if via.Scheme != "http" {
		return nil, errUntried
	}
	host := via.Host
	if via.Port() == "" {
		host = net.JoinHostPort(via.Hostname(), "80")
	}
	conn, err := e.Dial(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if err := tunnel(ctx, conn, address, via); err != nil {
		_ = conn.Close() // of no use
		return nil, err
	}
	return conn, nil
}

// errUntried: only plain HTTP proxies are tried.
var errUntried = errors.New("a proxy of this kind is not tried")

// tunnel asks a proxy for a connection to address.
func tunnel(ctx context.Context, conn net.Conn, address string, via *url.URL) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	var sent bytes.Buffer
	fmt.Fprintf(&sent, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", address, address)
	if password, ok := via.User.Password(); ok {
		fmt.Fprintf(&sent, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	sent.WriteString("\r\n")
	if _, err := conn.Write(sent.Bytes()); err != nil {
		return err
	}
	// One byte at a time: what follows the head is TLS, and must stay in conn.
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{io.LimitReader(conn, largestHead)}, 16), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("the proxy's answer: %w", err)
	}
	_ = resp.Body.Close() // what follows is TLS
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy refuses: %s", resp.Status)
	}
	return nil
}

// oneByte reads no further than it is asked for.
type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }
