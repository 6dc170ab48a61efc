package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/trustcast/trustcast/test/images"
)

// from is f for clients that come from an address of loopback.
func (f *front) from(address string) *front {
	at := *f
	at.dial = func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		return d.DialContext(ctx, "tcp", f.lis.Addr().String())
	}
	return &at
}

// shake makes a handshake and says no more.
func (f *front) shake(t *testing.T, cfg *tls.Config) error {
	t.Helper()
	conn, err := f.handshake(t, cfg)
	if err != nil {
		return err
	}
	return conn.Close()
}

// remembers stops the edge, after which every connection was looked at, and
// compares what it remembers.
func (f *front) remembers(t *testing.T, want ...Client) {
	t.Helper()
	f.close(t)
	var refusals uint64
	for _, c := range want {
		refusals += c.Refusals
	}
	compareClients(t, f.Clients(time.Time{}), want...)
	if got := uint64(testutil.ToFloat64(f.metrics.refusals)); got != refusals {
		t.Errorf("the metric counts %d refusals, want %d", got, refusals)
	}
}

func compareClients(t *testing.T, got []Client, want ...Client) {
	t.Helper()
	same := cmp.Options{
		cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Client{}, "LastSeen"),
		cmpopts.SortSlices(func(a, b Client) bool { return a.Address.Less(b.Address) }),
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("remembered (-want +got):\n%s", diff)
	}
}

func client(address string, requests, refusals uint64) Client {
	return Client{Address: netip.MustParseAddr(address), Requests: requests, Refusals: refusals}
}

func TestRefusalsAreRemembered(t *testing.T) {
	f := newFront(t, ok)
	foreign := pool(newCA(t, 9))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			from, name string
			roots      *x509.CertPool
			refuses    bool
		}{
			{"127.0.0.2", domain, foreign, true},
			{"127.0.0.3", "elsewhere.test", pool(f.ca), true},
			{"127.0.0.4", domain, pool(f.ca), false},
		} {
			err := f.from(c.from).shake(t, &tls.Config{ServerName: c.name, RootCAs: c.roots, MinVersion: version, MaxVersion: version})
			if (err != nil) != c.refuses {
				t.Errorf("from %s with %s: %v", c.from, tls.VersionName(version), err)
			}
		}
	}
	// What fails for another reason is no refusal: no cipher in common, no TLS,
	// nothing said at all.
	rsa := &tls.Config{ServerName: domain, RootCAs: foreign, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	if err := f.from("127.0.0.5").shake(t, rsa); err == nil {
		t.Error("a handshake without a cipher in common")
	}
	for _, say := range []string{"GET / HTTP/1.0\r\n\r\n", ""} {
		raw, err := f.from("127.0.0.6").dial(t.Context())
		must(t, err)
		_, err = io.WriteString(raw, say)
		must(t, err)
		must(t, raw.Close())
	}
	// A record that cannot be read, as an unencrypted alert, but says nothing.
	damaged := f.from("127.0.0.7")
	dial := damaged.dial
	damaged.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		return &damaging{Conn: conn}, err
	}
	conn, err := damaged.handshake(t, &tls.Config{ServerName: domain, RootCAs: pool(f.ca), MinVersion: tls.VersionTLS13})
	must(t, err) // in 1.3 the client is done before the server
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the server took a damaged record: %v", err)
	}
	must(t, conn.NetConn().Close())
	f.remembers(t, client("127.0.0.2", 0, 2), client("127.0.0.3", 0, 2))
}

// damaging changes the last byte of every write but the first, the hello.
type damaging struct {
	net.Conn
	greeted bool
}

func (d *damaging) Write(p []byte) (int, error) {
	if d.greeted {
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
	}
	d.greeted = true
	return d.Conn.Write(p)
}

// OpenSSL says why it refuses; Go never does.
func TestOpenSSLRefuses(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		images.Skip(t, "needs openssl")
	}
	f := newFront(t, ok)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out, err := exec.CommandContext(t.Context(), openssl, "s_client", "-verify_return_error", version,
			"-connect", f.lis.Addr().String(), "-servername", domain).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "verify error") {
			t.Errorf("%s did not refuse: %v\n%s", version, err, out)
		}
	}
	f.remembers(t, client("127.0.0.1", 0, 2))
}

// The end of what a client sent is known however it was read.
func TestPlainAlert(t *testing.T) {
	alert := []byte{recordAlert, 3, 3, 0, 2, alertFatal, 48}
	for _, c := range []struct {
		sent []byte
		want tls.AlertError
	}{
		{alert, 48},
		{append([]byte("a hello before it"), alert...), 48},
		{append(alert[:len(alert):len(alert)], 0), 0}, // it is not the end
		{[]byte{recordAlert, 3, 3, 0, 2, 1, 48}, 0},   // a warning
		{[]byte{22, 3, 3, 0, 2, alertFatal, 48}, 0},   // a handshake message
		{alert[1:], 0},
		{nil, 0},
	} {
		for _, step := range []int{1, 3, 7, 64} {
			here, there := net.Pipe()
			go func() {
				_, _ = there.Write(c.sent)
				_ = there.Close()
			}()
			l := &listened{Conn: here}
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{l}, make([]byte, step))
			must(t, err)
			if got := l.plainAlert(); got != c.want {
				t.Errorf("of %x in steps of %d: %d, want %d", c.sent, step, got, c.want)
			}
			must(t, here.Close())
		}
	}
}

func TestRequestsAreRemembered(t *testing.T) {
	f := newFront(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "absent") {
			http.NotFound(w, r)
			return
		}
		ok(w, r)
	})
	pulls := f.from("127.0.0.2").client(t)
	for range 3 {
		get(t, pulls, "/v2/", "ann", "secret")
	}
	get(t, pulls, "/v2/a/manifests/absent", "ann", "secret")
	get(t, f.from("127.0.0.3").client(t), "/v2/", "ann", "wrong")
	get(t, f.from("127.0.0.4").client(t), "/v2/", "", "")
	get(t, f.from("127.0.0.5").client(t), "/v2/a/manifests/absent", "ann", "secret")
	get(t, f.from("127.0.0.6").client(t), "/health", "ann", "secret")
	f.remembers(t, client("127.0.0.2", 3, 0))
}

// A host that proves what it trusts makes handshakes and no requests; what it
// thinks of a staged chain, its report says.
func TestHandshakesOfHostsAreNotRemembered(t *testing.T) {
	f := newFront(t, ok)
	ca2, foreign := newCA(t, 2), newCA(t, 9)
	live := &tls.Config{ServerName: domain, InsecureSkipVerify: true} // as agents do: they judge afterwards
	probe := live.Clone()
	probe.NextProtos = []string{NextProtocol}
	for _, staged := range []map[string]*tls.Certificate{nil, pairs(t, ca2, follow(t, f.ca, ca2))} {
		must(t, f.Publish(pairs(t, f.ca), staged))
		must(t, f.shake(t, live))
		if err := f.shake(t, probe); (err == nil) != (staged != nil) {
			t.Errorf("staged %v: the probe ended with %v", staged != nil, err)
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		refusing := next(foreign)
		refusing.MinVersion, refusing.MaxVersion = version, version
		if err := f.shake(t, refusing); err == nil {
			t.Errorf("%s: a foreign CA verified the staged chain", tls.VersionName(version))
		}
	}
	f.remembers(t)
}

func TestClientsAreBounded(t *testing.T) {
	e := New(Config{Domain: domain})
	puller := netip.MustParseAddr("192.0.2.1")
	e.clients.answered(puller.String()+":1", http.StatusOK)
	address := netip.MustParseAddr("10.0.0.0")
	for range maxClients {
		address = address.Next()
		e.clients.refusals.note(address)
	}
	e.clients.refusals.note(netip.MustParseAddr("10.0.0.1")) // again: it is not the oldest any more
	e.clients.refusals.note(address.Next())
	if got := len(e.Clients(time.Time{})); got != maxClients+1 {
		t.Errorf("%d addresses are remembered, want %d", got, maxClients+1)
	}
	remembered := map[string]uint64{}
	for _, c := range e.Clients(time.Time{}) {
		remembered[c.Address.String()] = c.Requests + c.Refusals
	}
	for address, want := range map[string]uint64{puller.String(): 1, "10.0.0.1": 2, "10.0.0.2": 0, "10.0.0.3": 1} {
		if remembered[address] != want {
			t.Errorf("%s is remembered for %d, want %d", address, remembered[address], want)
		}
	}
}

func TestForgetAndAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{Domain: domain})
		start := time.Now()
		for _, address := range []string{"10.0.0.1:1", "10.0.0.1:2", "[::ffff:10.0.0.1]:3", "10.0.0.2:1", "[2001:db8::1]:1", "pipe"} {
			e.clients.answered(address, http.StatusOK)
		}
		e.clients.refusals.note(netip.MustParseAddr("10.0.0.2"))
		compareClients(t, e.Clients(start), client("10.0.0.1", 3, 0), client("10.0.0.2", 1, 1), client("2001:db8::1", 1, 0))

		time.Sleep(time.Hour) // simulated
		e.clients.answered("10.0.0.1:4", http.StatusOK)
		compareClients(t, e.Clients(start.Add(time.Minute)), client("10.0.0.1", 4, 0))

		for _, address := range []string{"10.0.0.2:9", "pipe", ""} {
			e.Forget(address)
		}
		compareClients(t, e.Clients(start), client("10.0.0.1", 4, 0), client("2001:db8::1", 1, 0))
	})
}

// Run with -race.
func TestClientsTogether(t *testing.T) {
	e := New(Config{Domain: domain})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 500 {
				e.clients.answered(fmt.Sprintf("10.0.%d.%d:1", i, n%200), http.StatusOK)
				if n%50 == 0 {
					e.Forget(fmt.Sprintf("10.0.%d.1:1", i))
					_ = e.Clients(time.Time{})
				}
			}
		})
	}
	all.Wait()
	if got := len(e.Clients(time.Time{})); got == 0 || got > maxClients {
		t.Errorf("%d addresses", got)
	}
}

func BenchmarkAnswered(b *testing.B) {
	e := New(Config{Domain: domain})
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			e.clients.answered("10.20.30.40:54321", http.StatusOK)
		}
	})
}
