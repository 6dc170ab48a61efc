package gossip

import (
	"bytes"
	"strings"
	"testing"
)

func TestWhatPacketsHold(t *testing.T) {
	t.Parallel()
	ping := packed([]byte{kindPing}, "SeqNo", uint32(1), "Node", "a")
	suspect := packed([]byte{kindSuspect}, "Incarnation", uint32(1), "Node", "a", "From", "b")
	many := func(n int) [][]byte {
		parts := make([][]byte, n)
		for i := range parts {
			parts[i] = []byte{kindDead, 0x80}
		}
		return parts
	}
	for what, c := range map[string]struct {
		message []byte
		passes  bool
	}{
		"a ping":               {ping, true},
		"with a checksum":      {summed(ping), true},
		"news":                 {compound(alive("x", 1, nil), suspect), true},
		"a ping and news":      {compound(ping, suspect), true},
		"both, with checksum":  {summed(compound(ping, suspect)), true},
		"many news":            {compound(many(maxParts)...), true},
		"too many news":        {compound(many(maxParts + 1)...), false},
		"nothing":              {nil, false},
		"nothing but a sum":    {summed(nil), false},
		"two sums":             {summed(summed(ping)), false},
		"two pings":            {compound(ping, ping), false},
		"compound in compound": {compound(compound(suspect)), false},
		"compressed":           {bomb(t, 1), false},
		"compressed part":      {compound(suspect, bomb(t, 1)), false},
		"user message":         {[]byte{userType, 0x80}, false},
		"exchange":             {exchangeHead(0, 0), false},
		"cut":                  {ping[:len(ping)-1], false},
		"cut in a compound":    {compound(suspect, ping)[:20], false},
		"more behind it":       {append(bytes.Clone(ping), 0), false},
		"more behind parts":    {append(compound(ping), 0), false},
		"nested map":           {[]byte{kindPing, 0x81, 0xa1, 'a', 0x80}, false},
		"nested list":          {[]byte{kindPing, 0x81, 0xa1, 'a', 0x91, 0}, false},
		"number as a key":      {[]byte{kindPing, 0x81, 1, 1}, false},
		"all kinds of values":  {[]byte{kindPing, 0xde, 0, 5, 0xa0, 0xc0, 0xa0, 0xd2, 1, 2, 3, 4, 0xa0, 0xc4, 1, 9, 0xa0, 0xdb, 0, 0, 0, 1, 'x', 0xd9, 0, 0xff}, true},
		"a text that lies":     {[]byte{kindPing, 0x81, 0xa0, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}, false},
	} {
		if plainPacket(c.message) != c.passes {
			t.Errorf("%s: passes %v", what, !c.passes)
		}
	}
}

func TestWhatStreamsHold(t *testing.T) {
	t.Parallel()
	state := alive("x", 1, nil)[1:] // a map, as states are
	answer := packed([]byte{kindAck}, "SeqNo", uint32(1))
	for what, c := range map[string]struct {
		message          []byte
		passes, answered bool
	}{
		"an exchange":          {append(exchangeHead(2, 0), bytes.Repeat(state, 2)...), true, true},
		"of nobody":            {exchangeHead(0, 0), true, true},
		"a ping":               {packed([]byte{kindPing}, "SeqNo", uint32(1)), true, false},
		"an answer":            {answer, false, true},
		"an error":             {packed([]byte{kindError}, "Error", "x"), false, true},
		"compressed":           {bomb(t, 1), false, false},
		"fewer states":         {append(exchangeHead(2, 0), state...), false, false},
		"more states":          {append(exchangeHead(0, 0), state...), false, false},
		"too many states":      {append(exchangeHead(maxStates+1, 0), bytes.Repeat([]byte{0x80}, maxStates+1)...), false, false},
		"as many as may be":    {append(exchangeHead(maxStates, 0), bytes.Repeat([]byte{0x80}, maxStates)...), true, true},
		"user state":           {append(exchangeHead(0, 1), 'x'), false, false},
		"said twice":           {packed([]byte{kindPushPull}, "Nodes", uint32(1<<20), "Nodes", uint32(0)), false, false},
		"state that lies":      {append(exchangeHead(1, 0), 0x81, 0xa0, 0xc6, 0xff, 0xff, 0xff, 0xff), false, false},
		"state that is a list": {append(exchangeHead(1, 0), 0x90), false, false},
	} {
		if plainStream(c.message, false) != c.passes || plainStream(c.message, true) != c.answered {
			t.Errorf("%s: passes %v, as an answer %v", what, !c.passes, !c.answered)
		}
	}
}

// Nobody can fill our table so that honest exchanges become too long.
func TestFullTableFitsAStream(t *testing.T) {
	t.Parallel()
	longest := packed(nil, "Name", strings.Repeat("n", maxName), "Addr", make([]byte, 16), "Port", uint32(1<<16-1), "Meta", make([]byte, MaxMeta),
		"Incarnation", uint32(1<<32-1), "State", uint32(3), "Vsn", make([]byte, 6))
	if whole := len(longest)*maxStates + len(exchangeHead(0, 0)) + sealOverhead; whole > maxStream {
		t.Errorf("a full table takes %d bytes, a stream %d", whole, maxStream)
	}
}
