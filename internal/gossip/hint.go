package gossip

import (
	"bytes"
	"encoding/binary"
)

// ServerName is the member name of the server; hosts are members under their ID.
const ServerName = "server"

// Hint is what the server's metadata says: that a state exists. Whoever holds
// the gossip key can forge it, so it may wake an agent and nothing more.
type Hint struct{ Generation, Revision uint64 }

// Encode returns the metadata, 16 bytes.
func (h Hint) Encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, h.Generation), h.Revision)
}

// ParseHint reads metadata of the server; ok is false for anything else.
func ParseHint(meta []byte) (h Hint, ok bool) {
	if len(meta) != 16 {
		return Hint{}, false
	}
	return Hint{Generation: binary.BigEndian.Uint64(meta), Revision: binary.BigEndian.Uint64(meta[8:])}, true
}

// Lookup returns what is known of one member; ok is false for a stranger.
func (m *Member) Lookup(name string) (peer Peer, ok bool) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[name]
	if !ok {
		return Peer{}, false
	}
	return Peer{Name: name, Address: e.address, Meta: bytes.Clone(e.meta), Alive: e.alive}, true
}
