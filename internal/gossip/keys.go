package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

const (
	keySize = 32 // AES-256; memberlist would take shorter ones
	maxKeys = 8  // every packet that no key opens costs one try a key
)

func checkKeys(keys [][]byte) error {
	switch {
	case len(keys) == 0:
		return errors.New("no key: gossip is always encrypted; give at least one")
	case len(keys) > maxKeys:
		return fmt.Errorf("%d keys: at most %d; retire old ones", len(keys), maxKeys)
	}
	for i, k := range keys {
		if len(k) != keySize {
			return fmt.Errorf("key %d of %d has %d bytes: want %d", i+1, len(keys), len(k), keySize)
		}
	}
	return nil
}

func newRing(keys [][]byte) (*memberlist.Keyring, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	own := cloneKeys(keys)
	return memberlist.NewKeyring(own, own[0])
}

// replaceRing makes the ring hold exactly keys, the first of them encrypting.
// The ring must not be changed by anybody else meanwhile.
//
// Readers hold the slice that GetKeys gave them while RemoveKey shifts the keys
// behind the removed one inside that same array. Removing the last key shifts
// nothing, so stale keys are moved to the end first.
func replaceRing(ring *memberlist.Keyring, keys [][]byte) error {
	own := cloneKeys(keys)
	for _, k := range own {
		if err := ring.AddKey(k); err != nil {
			return err
		}
	}
	if err := ring.UseKey(own[0]); err != nil {
		return err
	}
	stale := func(k []byte) bool { return !containsKey(own, k) }
	for slices.ContainsFunc(ring.GetKeys(), stale) {
		held := ring.GetKeys()
		last := held[len(held)-1]
		change := ring.UseKey // moves a key to the front
		if stale(last) {
			change = ring.RemoveKey
		}
		if err := change(last); err != nil {
			return err
		}
	}
	return ring.UseKey(own[0])
}

func containsKey(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// cloneKeys copies, so that a caller may wipe its own.
func cloneKeys(keys [][]byte) [][]byte {
	own := make([][]byte, len(keys))
	for i, k := range keys {
		own[i] = bytes.Clone(k)
	}
	return own
}
