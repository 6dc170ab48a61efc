package security

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"math"
	"net/netip"
	"testing"

	"github.com/trustcast/trustcast/internal/gossip"
)

// forger holds a gossip key and no identity. It speaks memberlist's protocol by
// hand, since an honest member would not say such things.
type forger struct {
	t    *testing.T
	aead cipher.AEAD
	from gossip.Transport
}

func (w *world) forger(key []byte) *forger {
	w.t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		w.t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		w.t.Fatal(err)
	}
	return &forger{t: w.t, aead: aead, from: w.gossip.Transport("10.9.9.9:7947")}
}

// memberlist's message types.
const (
	suspectMessage = 3
	aliveMessage   = 4
	deadMessage    = 5
	userMessage    = 8
)

// send encrypts a packet as memberlist does: version 1, nonce, sealed message.
func (f *forger) send(to string, kind byte, body []byte) {
	f.t.Helper()
	nonce := make([]byte, f.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	packet := f.aead.Seal(append([]byte{1}, nonce...), nonce, append([]byte{kind}, body...), nil)
	if _, err := f.from.WriteTo(packet, to); err != nil {
		f.t.Errorf("send to %s: %v", to, err)
	}
}

// alive claims that a member is at address and says meta. The incarnation is the
// highest there is: nothing that the real one says later counts for more.
func (f *forger) alive(to, name, address string, meta []byte) {
	at := netip.MustParseAddrPort(address)
	f.send(to, aliveMessage, fields(
		"Incarnation", uint64(math.MaxUint32), "Node", name, "Addr", string(at.Addr().AsSlice()),
		"Port", uint64(at.Port()), "Meta", string(meta), "Vsn", string([]byte{1, 5, 2, 2, 5, 4}),
	))
}

// dead claims that a member died; from itself, that it left.
func (f *forger) dead(to, name, from string) {
	f.send(to, deadMessage, fields("Incarnation", uint64(math.MaxUint32), "Node", name, "From", from))
}

// suspect claims that a member does not answer.
func (f *forger) suspect(to, name, from string) {
	f.send(to, suspectMessage, fields("Incarnation", uint64(math.MaxUint32), "Node", name, "From", from))
}

// fields is a MessagePack map of strings and numbers.
func fields(pairs ...any) []byte {
	out := []byte{0x80 | byte(len(pairs)/2)}
	for _, v := range pairs {
		switch v := v.(type) {
		case string:
			out = append(binary.BigEndian.AppendUint16(append(out, 0xda), uint16(len(v))), v...)
		case uint64:
			out = binary.BigEndian.AppendUint64(append(out, 0xcf), v)
		}
	}
	return out
}
