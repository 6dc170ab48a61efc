package gossip

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestAdvertised(t *testing.T) {
	t.Parallel()
	bound, any4, any6 := netip.MustParseAddrPort("10.1.2.3:7947"), netip.MustParseAddrPort("0.0.0.0:7947"), netip.MustParseAddrPort("[::]:7947")
	for _, c := range []struct {
		bound            netip.AddrPort
		configured, want string
	}{
		{bound, "", "10.1.2.3:7947"},
		{netip.MustParseAddrPort("[::ffff:10.1.2.3]:7947"), "", "10.1.2.3:7947"},
		{bound, "192.0.2.7", "192.0.2.7:7947"},
		{any6, "192.0.2.7:99", "192.0.2.7:99"},
		{any6, "2001:db8::7", "[2001:db8::7]:7947"},
		{any6, "[2001:db8::7]:99", "[2001:db8::7]:99"},
	} {
		got, err := advertised(t.Context(), c.bound, c.configured, nil)
		if err != nil || got.String() != c.want {
			t.Errorf("bound %s, configured %q: %s (%v), want %s", c.bound, c.configured, got, err, c.want)
		}
	}
	for _, wildcard := range []netip.AddrPort{any4, any6} {
		for _, peers := range [][]string{nil, {"127.0.0.1:1"}, {"127.0.0.1:1", "127.0.0.1:2"}} { // a server starts without peers
			got, err := advertised(t.Context(), wildcard, "", peers)
			if err != nil || got.Addr().IsUnspecified() || got.Port() != 7947 {
				t.Errorf("bound %s, peers %v: %s (%v), want an address that can be dialled", wildcard, peers, got, err)
			}
		}
	}
}

// Shutdown must not wait for streams that nobody closes, nor leave them open.
func TestShutdownCutsStreams(t *testing.T) {
	t.Parallel()
	s, err := openSockets("127.0.0.1:0", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.DialTimeout(s.address(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	in := <-s.StreamCh()
	if err := s.Shutdown(); err != nil {
		t.Error(err)
	}
	for _, conn := range []net.Conn{in, out} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a stream is still open")
		}
	}
	if _, err := s.DialTimeout(s.address(), time.Minute); err == nil {
		t.Error("dialled after the end")
	}
	if _, err := s.WriteTo([]byte("x"), s.address()); err == nil {
		t.Error("sent after the end")
	}
}

func TestStreamsOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	s, err := openSockets("127.0.0.1:0", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown() }()
	var held []net.Conn
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	for range maxInbound {
		dial()
		held = append(held, <-s.StreamCh())
	}
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("one too many was accepted")
	}
	_ = held[0].Close()
	_ = held[0].Close() // frees one slot, not two
	dial()
	<-s.StreamCh()
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("a stream closed twice freed two slots")
	}
}

func TestPacketsAreCopies(t *testing.T) {
	t.Parallel()
	s, err := openSockets("127.0.0.1:0", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown() }()
	for _, text := range []string{"one", "two"} {
		if _, err := s.WriteTo([]byte(text), s.address()); err != nil {
			t.Fatal(err)
		}
	}
	one, two := <-s.PacketCh(), <-s.PacketCh()
	if string(one.Buf) != "one" || string(two.Buf) != "two" || one.From.String() != s.address() {
		t.Errorf("received %q and %q from %s", one.Buf, two.Buf, one.From)
	}
}

func TestRunCutsAJoin(t *testing.T) {
	t.Parallel()
	// A peer that accepts and never answers: a join waits 10 s for it.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	m := newFleet(t).start(Config{Name: "a", Peers: []string{silent.Addr().String()}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Logf("the join was cut: %v", err)
	}
}
