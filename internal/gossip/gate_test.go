package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// witness is a Transport that notes what a member sends.
type witness struct {
	Transport
	mu       *sync.Mutex
	packets  *[]sentPacket
	messages *[][]byte // of streams, dialled or answered, sealed
}

type sentPacket struct {
	to   string
	at   time.Time
	data []byte
}

func (w witness) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	w.mu.Lock()
	*w.packets = append(*w.packets, sentPacket{a.Addr, time.Now(), bytes.Clone(b)})
	w.mu.Unlock()
	return w.Transport.WriteToAddress(b, a)
}

func (w witness) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := w.Transport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return witnessed{conn, w}, nil
}

type witnessed struct {
	net.Conn
	w witness
}

func (c witnessed) Write(b []byte) (int, error) {
	c.w.mu.Lock()
	*c.w.messages = append(*c.w.messages, bytes.Clone(b))
	c.w.mu.Unlock()
	return c.Conn.Write(b)
}

// The gate must let through whatever honest members say, in good times and bad,
// and take many times as much as they say.
func TestHonestMembersPass(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 30
		w := &world{fleet: newFleet(t), net: NewNetwork(7)}
		defer w.end()
		var packets []sentPacket
		var messages [][]byte
		var mu sync.Mutex
		var logged bytes.Buffer
		for i := range n {
			m := w.start(Config{
				Name: strings.Repeat("0", 27) + nameOf(i), Meta: bytes.Repeat([]byte{0xff}, MaxMeta), Peers: []string{addressOf(0)},
				Transport: witness{w.net.Transport(addressOf(i)), &mu, &packets, &messages},
				Log:       slog.New(slog.NewTextHandler(&logged, nil)),
			})
			w.members, w.stops = append(w.members, m), append(w.stops, w.run(m))
		}
		w.within(5*time.Minute, "all see each other", func() bool { return see(w.members, w.all()...) })
		w.net.SetLoss(0.3)
		time.Sleep(2 * time.Minute)
		w.net.SetLoss(0)
		w.net.SetDown(addressOf(7), true)
		time.Sleep(time.Minute)
		w.net.SetDown(addressOf(7), false)
		w.within(5*time.Minute, "all see each other again", func() bool { return see(w.members, w.all()...) })

		mu.Lock()
		defer mu.Unlock()
		kinds, longest, received := map[byte]int{}, 0, map[string]int{}
		for _, p := range packets {
			message, ok := opened(p.data)
			if !ok || !plainPacket(message) || len(p.data) > maxPacket {
				t.Fatalf("refused: %d bytes, opened %v: %x", len(p.data), ok, message)
			}
			kinds[message[0]]++
			longest = max(longest, len(p.data))
			received[p.to+" "+p.at.Format(time.TimeOnly)]++
		}
		busiest := 0
		for _, n := range received {
			busiest = max(busiest, n)
		}
		for _, sealed := range messages {
			message, ok := openedStream(sealed)
			if !ok || !plainStream(message, false) {
				t.Fatalf("refused: a stream of %d bytes, opened %v", len(sealed), ok)
			}
			kinds[message[0]]++
		}
		t.Logf("%d packets and %d streams, kinds %v, longest packet %d bytes, at most %d packets a second to one member", len(packets), len(messages), kinds, longest, busiest)
		if kinds[kindCompound] == 0 || kinds[kindPushPull] == 0 || kinds[kindIndirect] == 0 || kinds[kindNack] == 0 {
			t.Error("too little happened to show anything")
		}
		if busiest > packetRate/5 {
			t.Errorf("a member got %d packets in one second: %d are too near to the limit", busiest, packetRate)
		}
		if logged.Len() > 0 {
			t.Errorf("honest members are called a flood:\n%s", &logged)
		}
	})
}

// openedStream opens a stream's message.
func openedStream(sealed []byte) (message []byte, ok bool) {
	var o opener
	if len(sealed) < streamHead || o.use([][]byte{keyA}) != nil {
		return nil, false
	}
	return o.open(nil, sealed[streamHead:], sealed[:streamHead])
}

// lonely is a gate over a network with somebody who can send to it.
func lonely(t testing.TB, log *slog.Logger) (g *gate, from Transport) {
	network := NewNetwork(1)
	g, err := newGate(network.Transport(fuzzedAt), [][]byte{keyA, keyB}, func() int { return 0 }, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Shutdown(); err != nil {
			t.Error(err)
		}
		network.Close()
	})
	return g, network.Transport(attackerAt)
}

// hand sends a stream, byte by byte so that no read has it whole, and returns what
// can be read of it.
func hand(t *testing.T, g *gate, from Transport, data io.Reader) (read []byte, err error) {
	out, err := from.DialTimeout(fuzzedAt, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	in := <-g.StreamCh()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(out, data) // refused, it is cut
		_ = out.Close()           // never fails
	}()
	read, err = io.ReadAll(in)
	_ = in.Close() // never fails
	<-sent
	return read, err
}

type byBytes struct{ io.Reader }

func (r byBytes) Read(p []byte) (int, error) { return r.Reader.Read(p[:1]) }

func TestStreamsThatPass(t *testing.T) {
	t.Parallel()
	g, from := lonely(t, slog.New(slog.DiscardHandler))
	ping := packed([]byte{kindPing}, "SeqNo", uint32(1))
	claim := func(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{sealedStream}, n) }
	for what, c := range map[string]struct {
		sent io.Reader
		err  error
	}{
		"what members say":    {byBytes{bytes.NewReader(sealStream(t, keyA, 1, ping))}, nil},
		"with the second key": {bytes.NewReader(sealStream(t, keyB, 1, ping)), nil},
		"with no key of ours": {bytes.NewReader(sealStream(t, bytes.Repeat([]byte{0xc}, keySize), 1, ping)), errUnsealed},
		"nothing in it":       {bytes.NewReader(sealStream(t, keyA, 1, nil)), errUnsealed},
		"padded":              {bytes.NewReader(sealStream(t, keyA, 0, []byte("0123456789abcde\xff"))), errUnsealed},
		"not sealed":          {bytes.NewReader(ping), errUnsealed},
		"compressed":          {bytes.NewReader(sealStream(t, keyA, 1, bomb(t, 41<<20))), errNoMember},
		"said to be too long": {bytes.NewReader(claim(maxStream + 1)), errLong},
	} {
		sealed, err := hand(t, g, from, c.sent)
		if c.err == nil {
			if _, ok := g.open(nil, sealed[min(streamHead, len(sealed)):], sealed[:min(streamHead, len(sealed))]); err != nil || !ok {
				t.Errorf("%s: %d bytes: %v", what, len(sealed), err)
			}
		} else if len(sealed) > 0 || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v: want %v", what, len(sealed), err, c.err)
		}
	}
	if read, _ := hand(t, g, from, bytes.NewReader(append(claim(maxStream), 1, 2, 3))); len(read) > 0 {
		t.Errorf("%d bytes of a stream that is shorter than it says", len(read))
	}
}

func TestLongStreamsAreFew(t *testing.T) {
	t.Parallel()
	g, from := lonely(t, slog.New(slog.DiscardHandler))
	state := alive("x", 1, nil)[1:]
	states := uint32(shortStream / len(state) * 2)
	long := append(exchangeHead(states, 0), bytes.Repeat(state, int(states))...)
	for range 2 * maxLong { // a slot comes back
		if _, err := hand(t, g, from, bytes.NewReader(sealStream(t, keyA, 1, long))); err != nil {
			t.Fatal(err)
		}
	}
	for range maxLong {
		g.long <- struct{}{}
	}
	if _, err := hand(t, g, from, bytes.NewReader(sealStream(t, keyA, 1, long))); !errors.Is(err, errLong) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := hand(t, g, from, bytes.NewReader(sealStream(t, keyA, 1, exchangeHead(0, 0)))); err != nil {
		t.Errorf("a short one: %v", err)
	}
	g.answer = func() int { return shortStream + 1 }
	if _, err := hand(t, g, from, bytes.NewReader(sealStream(t, keyA, 1, exchangeHead(0, 0)))); !errors.Is(err, errLong) {
		t.Errorf("a short one whose answer is long: %v", err)
	}
}

// A flood gets through in part, is said once, and takes nothing of anybody's when
// no key opens it.
func TestFloodsAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var logged bytes.Buffer
		g, from := lonely(t, slog.New(slog.NewTextHandler(&logged, nil)))
		passed := 0
		flood := func(key []byte, n int) {
			for range n {
				if _, err := from.WriteTo(seal(t, key, 1, []byte{kindDead, 0x80}, nil), fuzzedAt); err != nil {
					t.Error(err)
				}
				select {
				case <-g.PacketCh():
					passed++
				case <-time.After(time.Microsecond):
				}
			}
		}
		flood(bytes.Repeat([]byte{0xc}, keySize), 3*packetBurst)
		if passed > 0 || logged.Len() > 0 {
			t.Errorf("%d packets of strangers passed: %s", passed, &logged)
		}
		flood(keyA, 3*packetBurst)
		if passed < packetBurst || passed > packetBurst+packetRate {
			t.Errorf("%d packets passed at once: want %d", passed, packetBurst)
		}
		time.Sleep(time.Second)
		passed = 0
		flood(keyA, 3*packetRate)
		if passed < packetRate || passed > packetRate+packetRate/10 {
			t.Errorf("%d packets passed in a second: want %d", passed, packetRate)
		}
		ping := sealStream(t, keyA, 1, []byte{kindPing, 0x80})
		answered := 0
		for range 2 * exchangeBurst / minExchange {
			if _, err := hand(t, g, from, bytes.NewReader(ping)); err == nil {
				answered++
			} else if !errors.Is(err, errTooMany) {
				t.Fatal(err)
			}
		}
		if want := exchangeBurst / minExchange; answered != want {
			t.Errorf("%d streams passed: want %d", answered, want)
		}
		if n := strings.Count(logged.String(), "gossip flood"); n != 1 {
			t.Errorf("said %d times:\n%s", n, &logged)
		}
	})
}
