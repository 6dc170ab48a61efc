package gossip

import (
	"encoding/binary"
)

// The kinds of messages that members send (memberlist v0.7.0, net.go). All are a
// MessagePack map behind a byte for the kind.
const (
	kindPing     = 0
	kindIndirect = 1
	kindAck      = 2
	kindSuspect  = 3
	kindAlive    = 4
	kindDead     = 5
	kindPushPull = 6
	kindCompound = 7
	kindNack     = 11
	kindSum      = 12
	kindError    = 13

	sumHead      = 1 + 4 // kind, CRC-32
	compoundHead = 1 + 1 // kind, number of parts
	partHead     = 2     // length of a part; all lengths stand before all parts
)

const (
	// maxParts: a packet of 1,400 bytes holds 45 of the shortest news.
	maxParts = 64

	// maxStates: a full table, and who sends it.
	maxStates = maxMembers + 1
)

// plainPacket says whether a message is what members send in packets. Compressed
// ones are not: memberlist unpacks 31 kB to 40 MB whatever its configuration
// says. Nor are nested ones, user messages, and maps whose lengths lie, for which
// it allocates up to 256 KiB each.
func plainPacket(m []byte) bool {
	if len(m) >= sumHead && m[0] == kindSum {
		m = m[sumHead:] // memberlist compares it
	}
	if len(m) == 0 || m[0] != kindCompound {
		return plainMessage(m, kindPing, kindIndirect, kindAck, kindNack, kindSuspect, kindAlive, kindDead)
	}
	if len(m) < compoundHead || m[1] > maxParts || len(m) < compoundHead+partHead*int(m[1]) {
		return false
	}
	lengths := m[compoundHead : compoundHead+partHead*int(m[1])]
	parts := m[compoundHead+len(lengths):]
	for i := 0; i < len(lengths); i += partHead {
		n := int(binary.BigEndian.Uint16(lengths[i:]))
		if n > len(parts) || !plainMessage(parts[:n], kindSuspect, kindAlive, kindDead) &&
			(i > 0 || !plainMessage(parts[:n], kindPing, kindIndirect, kindAck, kindNack)) {
			return false // one that is answered leads, and news follow: one packet causes one answer
		}
		parts = parts[n:]
	}
	return len(parts) == 0
}

// plainStream says whether a message is what members send in streams: a ping or
// an exchange of the tables, and what answers it to those who dialled.
func plainStream(m []byte, dialled bool) bool {
	if len(m) > 0 && m[0] == kindPushPull {
		return plainExchange(m[1:])
	}
	if dialled {
		return plainMessage(m, kindAck, kindError)
	}
	return plainMessage(m, kindPing)
}

// plainExchange: a head, as many states as it says, and no user state, which
// members do not have. memberlist allocates what the head claims before it reads
// on: 112 MB for 43 bytes.
func plainExchange(m []byte) bool {
	states, seen := uint64(0), map[string]bool{}
	m, ok := readMap(m, func(key []byte, number uint64) bool {
		switch string(key) {
		case "Nodes":
			states = number
		case "UserStateLen":
			if number != 0 {
				return false
			}
		}
		again := seen[string(key)]
		seen[string(key)] = true
		return !again && len(seen) <= 3
	})
	if !ok || states > maxStates {
		return false
	}
	for ; states > 0 && ok; states-- {
		m, ok = readMap(m, nil)
	}
	return ok && len(m) == 0
}

// plainMessage: one of these kinds and a map, to the end.
func plainMessage(m []byte, kinds ...byte) bool {
	if len(m) == 0 {
		return false
	}
	for _, kind := range kinds {
		if m[0] == kind {
			rest, ok := readMap(m[1:], nil)
			return ok && len(rest) == 0
		}
	}
	return false
}

// readMap reads a MessagePack map of texts, numbers, truths and nils, and returns
// what follows. ok is false for anything else, whatever visit refuses, and claims
// of more than there is.
func readMap(b []byte, visit func(key []byte, number uint64) bool) (rest []byte, ok bool) {
	pairs := uint64(0)
	switch {
	case len(b) == 0:
		return nil, false
	case b[0]&0xf0 == 0x80:
		pairs, b = uint64(b[0]&0x0f), b[1:]
	case b[0] == 0xde:
		pairs, b, ok = readNumber(b[1:], 2)
		if !ok {
			return nil, false
		}
	default:
		return nil, false
	}
	for ; pairs > 0; pairs-- {
		var key []byte
		var number uint64
		if key, _, b, ok = readValue(b); !ok || key == nil {
			return nil, false
		}
		if _, number, b, ok = readValue(b); !ok || visit != nil && !visit(key, number) {
			return nil, false
		}
	}
	return b, true
}

// readValue reads one value: a text or bytes, never nil then, or a number as
// its bits.
func readValue(b []byte) (text []byte, number uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, 0, nil, false
	}
	c, b := b[0], b[1:]
	length := uint64(0)
	switch {
	case c <= 0x7f, c >= 0xe0: // small number
		return nil, uint64(c), b, true
	case c == 0xc0, c == 0xc2, c == 0xc3: // nil, false, true
		return nil, 0, b, true
	case 0xcc <= c && c <= 0xd3: // number of 1, 2, 4, 8 bytes, without and with a sign
		number, b, ok = readNumber(b, 1<<(c&3))
		return nil, number, b, ok
	case c&0xe0 == 0xa0: // short text
		length, ok = uint64(c&0x1f), true
	case 0xc4 <= c && c <= 0xc6: // bytes
		length, b, ok = readNumber(b, 1<<(c-0xc4))
	case 0xd9 <= c && c <= 0xdb: // text
		length, b, ok = readNumber(b, 1<<(c-0xd9))
	}
	if !ok || length > uint64(len(b)) {
		return nil, 0, nil, false
	}
	return b[:length:length], 0, b[length:], true
}

func readNumber(b []byte, bytes int) (number uint64, rest []byte, ok bool) {
	if len(b) < bytes {
		return 0, nil, false
	}
	for _, c := range b[:bytes] {
		number = number<<8 | uint64(c)
	}
	return number, b[bytes:], true
}
