package gossip

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/time/rate"
)

// bomb is a compressed message that unpacks to so many zeros.
func bomb(t testing.TB, zeros int64) []byte {
	var squeezed bytes.Buffer
	w := lzw.NewWriter(&squeezed, lzw.LSB, 8)
	if _, err := io.CopyN(w, endless{}, zeros); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed([]byte{compressType}, "Algo", uint32(0), "Buf", squeezed.Bytes())
}

// endless has zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func compound(parts ...[]byte) []byte {
	out := []byte{kindCompound, byte(len(parts))}
	for _, p := range parts {
		out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
	}
	return append(out, bytes.Join(parts, nil)...)
}

func summed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kindSum}, crc32.ChecksumIEEE(message)), message...)
}

func exchangeHead(nodes, user uint32) []byte {
	return packed([]byte{kindPushPull}, "Nodes", nodes, "UserStateLen", user, "Join", true)
}

// hoarders are messages that each cost memberlist v0.7.0 alone far more than they
// weigh: up to 128 MB.
func hoarders(t testing.TB) map[string]struct {
	message []byte
	stream  bool
} {
	type sent = struct {
		message []byte
		stream  bool
	}
	large, small := bomb(t, 41<<20), bomb(t, 400<<10)
	liar := packed([]byte{kindAck}, "SeqNo", uint32(1), "Payload", []byte{})
	liar = append(liar[:len(liar)-3], 0xc6, 0x7f, 0xff, 0xff, 0xff) // said to be 2 GiB
	return map[string]sent{
		"compressed packet":            {large, false},
		"compressed packet, small":     {small, false},
		"compressed behind a checksum": {summed(small), false},
		"compressed in a compound":     {compound(alive("x", 1, nil), small), false},
		"compressed in both":           {summed(compound(small)), false},
		"compressed stream":            {large, true},
		"head of a huge exchange":      {exchangeHead(1<<20, 0), true},
		"head of a full exchange":      {exchangeHead(maxMembers, 0), true},
		"head of a huge user state":    {exchangeHead(0, 20<<20), true},
		"user message":                 {packed([]byte{userType}, "UserMsgLen", uint32(20<<20)), true},
		"bytes that are not there":     {liar, false},
	}
}

// What a holder of the key sends must not cost much more than its weight.
func TestWorkIsBoundedByWeight(t *testing.T) {
	tg := newTarget(t)
	for what, c := range hoarders(t) {
		t.Run(what, func(t *testing.T) {
			sealed := seal(t, keyA, 1, c.message, nil)
			if c.stream {
				sealed = sealStream(t, keyA, 1, c.message)
			}
			limit := uint64(128<<10 + 4*len(sealed)) // what one message is handled with, and its copies
			tg.answers(t)                            // whatever came before is over
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if c.stream {
				tg.stream(t, sealed, true)
			} else {
				tg.packet(t, sealed)
			}
			tg.answers(t)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > limit {
				t.Errorf("%d bytes make a member allocate %d: at most %d", len(sealed), got, limit)
			} else {
				t.Logf("%d bytes make a member allocate %d", len(sealed), got)
			}
		})
	}
}

func BenchmarkPacket(b *testing.B) {
	tg := newTarget(b)
	b.ReportAllocs()
	for b.Loop() {
		tg.answers(b)
	}
}

// What the gate adds to each packet.
func BenchmarkGate(b *testing.B) {
	g, _ := lonely(b, slog.New(slog.DiscardHandler))
	g.pace.SetLimit(rate.Inf)
	buf := make([]byte, 0, maxPacket)
	var news [][]byte
	for _, name := range strings.Split("abcdefghi", "") {
		news = append(news, alive(name, 1, nil))
	}
	for what, message := range map[string][]byte{"ping": {kindPing, 0x80}, "news": summed(compound(news...))} {
		for who, key := range map[string][]byte{"a member": keyA, "a stranger": bytes.Repeat([]byte{0xc}, keySize)} {
			packet := seal(b, key, 1, message, nil)
			b.Run(what+" of "+who, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if g.passes(packet, buf) != (who == "a member") {
						b.Fatal("wrong")
					}
				}
			})
		}
	}
}

func BenchmarkHoarder(b *testing.B) {
	tg := newTarget(b)
	for _, what := range []string{"compressed packet", "compressed packet, small", "compressed stream", "head of a huge exchange"} {
		c := hoarders(b)[what]
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if c.stream {
					tg.stream(b, sealStream(b, keyA, 1, c.message), true)
				} else {
					tg.packet(b, seal(b, keyA, 1, c.message, nil))
				}
				tg.answers(b)
			}
		})
	}
}
