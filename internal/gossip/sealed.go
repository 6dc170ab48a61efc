package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"sync/atomic"
)

// How memberlist v0.7.0 seals (security.go, net.go): a version, a nonce, AES-GCM
// and its tag. A stream's message has a kind and its length before that, which
// the tag covers.
const (
	sealVersion  = 1 // AES-GCM without padding; over the padding of version 0 memberlist panics
	nonceSize    = 12
	sealOverhead = 1 + nonceSize + 16 // of a message with nothing in it, over which memberlist panics
	sealedStream = 10                 // the kind of message that each stream begins with
	streamHead   = 1 + 4              // kind, length
)

// opener opens what members sealed, and seals as they do. Its methods are safe for concurrent use.
type opener struct {
	keys atomic.Pointer[[]cipher.AEAD]
}

// use makes it open with these keys and no others.
func (o *opener) use(keys [][]byte) error {
	aeads := make([]cipher.AEAD, len(keys))
	for i, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		if aeads[i], err = cipher.NewGCM(block); err != nil {
			return err
		}
	}
	o.keys.Store(&aeads)
	return nil
}

// open returns the message, in the space of buf if it fits; ok is false for what
// is sealed with no key of ours, is empty, or was changed.
func (o *opener) open(buf, sealed, covered []byte) (message []byte, ok bool) {
	if len(sealed) <= sealOverhead || sealed[0] != sealVersion {
		return nil, false
	}
	nonce, text := sealed[1:1+nonceSize], sealed[1+nonceSize:]
	for _, aead := range *o.keys.Load() {
		if message, err := aead.Open(buf[:0], nonce, text, covered); err == nil {
			return message, true
		}
	}
	return nil, false
}

// seal returns a message as members send it, under the first key; covered is a
// stream's head.
func (o *opener) seal(message, covered []byte) []byte {
	sealed := make([]byte, 1+nonceSize, sealOverhead+len(message))
	sealed[0] = sealVersion
	_, _ = rand.Read(sealed[1:]) // never fails
	return (*o.keys.Load())[0].Seal(sealed, sealed[1:], message, covered)
}
