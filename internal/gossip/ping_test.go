package gossip

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// TestPing: a member answers on both ways to who holds a key of its ring, and knows
// nobody more afterwards. Others are not answered.
func TestPing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.start(Config{Name: "a", Keys: [][]byte{keyA, keyB}})
	f.run(m)
	for _, network := range []string{"tcp", "udp"} {
		for what, c := range map[string]struct {
			keys     [][]byte
			answered bool
		}{
			"the ring":       {[][]byte{keyA, keyB}, true},
			"the other way":  {[][]byte{keyB, keyA}, true},
			"another ring":   {[][]byte{bytes.Repeat([]byte{0xc}, keySize)}, false},
			"an answer lost": {[][]byte{keyB}, false}, // it is sealed with keyA
		} {
			err := Ping(t.Context(), network, m.Address(), c.keys)
			if c.answered && err != nil || !c.answered && !errors.Is(err, ErrUnanswered) {
				t.Errorf("%s, %s: %v", network, what, err)
			}
		}
		if err := Ping(t.Context(), network, m.Address(), nil); err == nil || errors.Is(err, ErrUnanswered) {
			t.Errorf("%s, no keys: %v", network, err)
		}
	}
	if m.table.size() > 0 || m.Reached() || m.list.NumMembers() != 1 {
		t.Errorf("who pinged is a member: %v", m.Members())
	}
	select {
	case <-f.changed:
		t.Error("the table changed")
	default:
	}
}

// relay passes packets to and from a member, but drops the first few of who asks, and
// answers with others before each; honest: then with the member's.
func relay(t *testing.T, member string, drop int, honest bool) (address string) {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.Dial("udp", member)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, maxPacket)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return
			}
			if drop--; drop >= 0 {
				continue
			}
			_, _ = front.WriteTo([]byte("noise"), from)                                                                // answers of others
			_, _ = front.WriteTo(seal(t, keyA, 1, packed([]byte{kindAck}, "SeqNo", uint32(1)), nil), from)             // are not ours
			_, _ = front.WriteTo(seal(t, keyA, 1, packed([]byte{kindNack}, "SeqNo", sequence(t, buf[:n])), nil), from) // nor is this
			if !honest {
				continue
			}
			if _, err := back.Write(buf[:n]); err != nil {
				return
			}
			if n, err = back.Read(buf); err != nil {
				return
			}
			_, _ = front.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		_, _ = front.Close(), back.Close() // ends the loop
		<-ended
	})
	return front.LocalAddr().String()
}

// sequence is the number of a ping.
func sequence(t *testing.T, packet []byte) (number uint32) {
	message, ok := opened(packet)
	if !ok || message[0] != kindPing {
		t.Errorf("no ping: %x", message)
		return 0
	}
	readMap(message[1:], func(_ []byte, n uint64) bool {
		number = uint32(n)
		return true
	})
	return number
}

// TestPingIsRepeated, and no more often than it says.
func TestPingIsRepeated(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.start(Config{Name: "a"})
	f.run(m)
	err := ErrUnanswered
	for range 5 { // a busy machine may be late for the one packet that arrives
		if err = Ping(t.Context(), "udp", relay(t, m.Address(), pingTries-1, true), [][]byte{keyA}); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("the last one arrives: %v", err)
	}
	if err := Ping(t.Context(), "udp", relay(t, m.Address(), pingTries, true), [][]byte{keyA}); !errors.Is(err, ErrUnanswered) {
		t.Errorf("none arrives: %v", err)
	}
	if err := Ping(t.Context(), "udp", relay(t, m.Address(), 0, false), [][]byte{keyA}); !errors.Is(err, ErrUnanswered) {
		t.Errorf("only answers of others: %v", err)
	}
}

// TestPingEnds when its context does, whatever listens.
func TestPingEnds(t *testing.T) {
	t.Parallel()
	tcp, udp, err := bind("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = tcp.Close(), udp.Close() }()
	for network, heard := range map[string]func(){
		"udp": func() { _, _, _ = udp.ReadFrom(make([]byte, maxPacket)) },
		"tcp": func() {
			conn, err := tcp.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Ping(ctx, network, tcp.Addr().String(), [][]byte{keyA}) }()
		heard()
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", network, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: it does not end", network)
		}
	}
	address := tcp.Addr().String()
	_, _ = tcp.Close(), udp.Close()
	if err := Ping(t.Context(), "tcp", address, [][]byte{keyA}); err == nil || errors.Is(err, ErrUnanswered) {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestAnswered: what counts as the answer to a ping.
func TestAnswered(t *testing.T) {
	t.Parallel()
	p := ping{number: 7}
	ack := packed([]byte{kindAck}, "SeqNo", uint32(7), "Payload", []byte(nil))
	news := alive("x", 1, nil)
	compound := func(parts ...[]byte) []byte {
		m := []byte{kindCompound, byte(len(parts))}
		for _, p := range parts {
			m = append(m, byte(len(p)>>8), byte(len(p)))
		}
		return append(m, bytes.Join(parts, nil)...)
	}
	for what, c := range map[string]struct {
		message []byte
		want    bool
	}{
		"an ack":             {ack, true},
		"with a sum":         {append([]byte{kindSum, 1, 2, 3, 4}, ack...), true},
		"with news":          {compound(ack, news), true},
		"sum and news":       {append([]byte{kindSum, 1, 2, 3, 4}, compound(ack, news, news)...), true},
		"of another ping":    {packed([]byte{kindAck}, "SeqNo", uint32(8)), false},
		"without a number":   {packed([]byte{kindAck}), false},
		"another kind":       {packed([]byte{kindNack}, "SeqNo", uint32(7)), false},
		"news alone":         {compound(news), false},
		"an empty packet":    {compound(), false},
		"nothing":            {nil, false},
		"a sum over nothing": {[]byte{kindSum, 1, 2, 3, 4}, false},
		"cut short":          {ack[:len(ack)-1], false},
	} {
		if got := p.answered(c.message); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
