package gossip

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

const (
	fuzzedAt   = "10.0.0.1:7946"
	attackerAt = "10.0.0.9:7946"
)

// target is a member that runs for as long as a fuzzing process, and the
// transport of somebody who knows its address. A panic anywhere in it ends the
// process, which is how the fuzzer sees it.
type target struct {
	member   *Member
	attacker Transport
	sent     uint32 // sequence number of the last ping; above 65535 all are packed alike
}

func newTarget(f testing.TB) *target {
	network := NewNetwork(1)
	attacker := network.Transport(attackerAt)
	m, err := Start(Config{Name: "fuzzed", Keys: [][]byte{keyA}, Meta: []byte("its own"), Transport: network.Transport(fuzzedAt)})
	if err != nil {
		f.Fatal(err)
	}
	m.net.pace.SetLimit(rate.Inf) // what is judged here is each message
	m.net.exchanges.SetLimit(rate.Inf)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
		network.Close()
	})
	return &target{member: m, attacker: attacker, sent: 1 << 16}
}

// FuzzStranger sends bytes of somebody without a key: nobody appears, and the
// member goes on answering.
func FuzzStranger(f *testing.F) {
	tg := newTarget(f)
	for _, message := range messages() {
		f.Add(message, false)
		f.Add(message, true)
		f.Add(seal(f, keyB, 1, message, nil), false)
		f.Add(sealStream(f, keyB, 1, message), true)
	}
	f.Add([]byte{sealedStream, 0xff, 0xff, 0xff, 0xff}, true)
	f.Add([]byte{labelled, 3, 'a', 'b', 'c', kindAlive}, false)
	f.Add([]byte{labelled, 255}, true)
	f.Fuzz(func(t *testing.T, data []byte, stream bool) {
		if stream {
			tg.stream(t, data, false)
		} else {
			tg.packet(t, data)
		}
		tg.answers(t)
		if all := tg.member.Members(); len(all) > 0 {
			t.Errorf("a stranger made %d members: %+v", len(all), all[0])
		}
	})
}

// FuzzKeyHolder sends what somebody who has the gossip key, and nothing else,
// may say. Members may appear, each well-formed; the fuzzed one stays itself.
func FuzzKeyHolder(f *testing.F) {
	tg := newTarget(f)
	for _, message := range messages() {
		for _, version := range []byte{0, 1, 2} {
			f.Add(message, version, false)
			f.Add(message, version, true)
		}
	}
	tg.packet(f, seal(f, keyA, 1, alive("control", 1, nil), nil))
	tg.settled(f, "control")
	for _, message := range messages() {
		if len(message) > 0 && message[0] == kindPushPull {
			tg.stream(f, sealStream(f, keyA, 1, message), true)
		}
	}
	tg.settled(f, "streamed")
	f.Fuzz(func(t *testing.T, message []byte, version byte, stream bool) {
		if stream {
			tg.stream(t, sealStream(t, keyA, version, message), true)
		} else {
			tg.packet(t, seal(t, keyA, version, message, nil))
		}
		tg.answers(t)
		all := tg.member.Members()
		if len(all) > maxMembers {
			t.Errorf("%d members are remembered", len(all))
		}
		for _, p := range all {
			if _, err := netip.ParseAddrPort(p.Address); err != nil || !validName(p.Name) || len(p.Meta) > MaxMeta || p.Name == "fuzzed" {
				t.Errorf("member %+v", p)
			}
		}
		if self := tg.member.list.LocalNode(); self.Name != "fuzzed" || self.Address() != fuzzedAt || string(self.Meta) != "its own" {
			t.Errorf("the member calls itself %s at %s", self, self.Address())
		}
	})
}

// FuzzParseHint reads metadata that anybody with the key can forge.
func FuzzParseHint(f *testing.F) {
	f.Add(Hint{Generation: 1, Revision: 1<<64 - 1}.Encode())
	f.Add([]byte(nil))
	f.Add(make([]byte, 17))
	f.Fuzz(func(t *testing.T, meta []byte) {
		h, ok := ParseHint(meta)
		if ok != (len(meta) == 16) || ok && !bytes.Equal(h.Encode(), meta) || !ok && h != (Hint{}) {
			t.Errorf("%x is read as %+v, %v", meta, h, ok)
		}
	})
}

func (tg *target) packet(t testing.TB, data []byte) {
	if _, err := tg.attacker.WriteTo(data, fuzzedAt); err != nil {
		t.Fatal(err)
	}
}

// stream sends data and waits until the member has closed the stream; a whole
// message is answered first, of another there may be no end.
func (tg *target) stream(t testing.TB, data []byte, whole bool) {
	conn, err := tg.attacker.DialTimeout(fuzzedAt, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn) // whatever it answers
		close(drained)
	}()
	_, _ = conn.Write(data) // the member may have closed it early
	if !whole {
		_ = conn.Close() // never fails
	}
	<-drained
	_ = conn.Close() // never fails
}

// answers pings the member, which reads packets in order: what was sent before
// has been read when it answers.
func (tg *target) answers(t testing.TB) {
	tg.sent++
	number := tg.sent
	ping := packed([]byte{kindPing}, "SeqNo", number, "Node", "fuzzed")
	tg.packet(t, seal(t, keyA, 1, ping, nil))
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	for {
		select {
		case p := <-tg.attacker.PacketCh():
			// The answer may travel with news in one packet.
			if message, ok := opened(p.Buf); ok && bytes.Contains(message, binary.BigEndian.AppendUint32([]byte{0xce}, number)) {
				return
			}
		case <-patience.C:
			t.Fatal("the member answers no more")
		}
	}
}

// settled waits until the member knows somebody: the control of what is sent.
func (tg *target) settled(t testing.TB, name string) {
	for patience := 0; !tg.member.Alive(name); patience++ {
		if patience == 10_000 {
			t.Fatalf("a good message makes no member %s", name)
		}
		tg.answers(t)
	}
}

// Kinds of messages that memberlist reads and members do not send.
const (
	userType     = 8
	compressType = 9
	labelled     = 244
)

// messages are one of each kind, and some that are odd.
func messages() [][]byte {
	state := packed(nil, "Name", "streamed", "Addr", []byte{10, 0, 0, 3}, "Port", uint32(7946), "Incarnation", uint32(1), "State", uint32(0), "Vsn", []byte{1, 5, 2, 0, 0, 0})
	push := func(nodes, user uint32) []byte {
		return packed([]byte{kindPushPull}, "Nodes", nodes, "UserStateLen", user, "Join", true)
	}
	return [][]byte{
		nil, {kindAlive}, {kindCompound, 1, 0, 0}, {compressType}, {kindSum, 0, 0, 0, 0}, {userType, 'x'},
		packed([]byte{kindPing}, "SeqNo", uint32(1), "Node", "fuzzed"),
		packed([]byte{kindIndirect}, "SeqNo", uint32(1), "Target", []byte{10, 0, 0, 7}, "Port", uint32(1), "Node", "x", "SourceAddr", []byte{1}, "SourcePort", uint32(1)),
		packed([]byte{kindSuspect}, "Incarnation", uint32(1), "Node", "fuzzed", "From", "x"),
		packed([]byte{kindDead}, "Incarnation", uint32(1<<32-1), "Node", "fuzzed", "From", "fuzzed"),
		packed([]byte{kindDead}, "Incarnation", uint32(9), "Node", "control", "From", "x"),
		alive("joined", 1, []byte("meta")), alive("fuzzed", 1<<32-1, nil), alive("a/b", 1, nil), alive("long", 1, make([]byte, MaxMeta+1)),
		append(push(1, 0), state...), append(push(2, 5), state...), push(1<<20, 0), push(0, 20<<20), push(1<<31, 1<<31),
		packed([]byte{compressType}, "Algo", uint32(0), "Buf", []byte{0x80, 0x0b}),
	}
}

func alive(name string, incarnation uint32, meta []byte) []byte {
	return packed([]byte{kindAlive}, "Incarnation", incarnation, "Node", name, "Addr", []byte{10, 0, 0, 3}, "Port", uint32(7946), "Meta", meta, "Vsn", []byte{1, 5, 2, 0, 0, 0})
}

// packed writes a MessagePack map of pairs behind head.
func packed(head []byte, pairs ...any) []byte {
	out := append(bytes.Clone(head), 0x80|byte(len(pairs)/2))
	raw := func(s string) {
		out = append(append(out, 0xda), byte(len(s)>>8), byte(len(s)))
		out = append(out, s...)
	}
	for _, v := range pairs {
		switch v := v.(type) {
		case string:
			raw(v)
		case []byte:
			raw(string(v))
		case bool: // true
			out = append(out, 0xc3)
		case uint32:
			out = binary.BigEndian.AppendUint32(append(out, 0xce), v)
		}
	}
	return out
}

// seal encrypts as memberlist does; version 0 without its padding.
func seal(t testing.TB, key []byte, version byte, message, bound []byte) []byte {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce) // never fails
	return gcm(t, key).Seal(append([]byte{version}, nonce...), nonce, message, bound)
}

// sealStream is a message as streams carry it.
func sealStream(t testing.TB, key []byte, version byte, message []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{sealedStream}, uint32(1+12+len(message)+16))
	return append(bytes.Clone(head), seal(t, key, version, message, head)...)
}

func opened(packet []byte) (message []byte, ok bool) {
	if len(packet) < 13 {
		return nil, false
	}
	block, err := aes.NewCipher(keyA)
	if err != nil {
		return nil, false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, false
	}
	message, err = aead.Open(nil, packet[1:13], packet[13:], nil)
	return message, err == nil
}

func gcm(t testing.TB, key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}
