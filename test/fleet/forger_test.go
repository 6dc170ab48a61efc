//go:build linux

package fleet_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/gossip"
)

// forger has a gossip key and no identity. It speaks memberlist's protocol by
// hand, from the bridge, since an honest member would not say such things.
type forger struct {
	aead  cipher.AEAD
	udp   *net.UDPConn
	false string // where it says that others are
}

// memberlist's message types, and what marks a sealed stream.
const (
	suspectMessage  = 3
	aliveMessage    = 4
	deadMessage     = 5
	pushPullMessage = 6
	userMessage     = 8
	sealedStream    = 10
	// sealVersion 1 is AES-GCM without padding.
	sealVersion = 1
	// states of a member in a stream.
	stateAlive, stateDead = 0, 2
)

func newForger(t *testing.T, f *fleet, key []byte) *forger {
	t.Helper()
	block, err := aes.NewCipher(key)
	must(t, err)
	aead, err := cipher.NewGCM(block)
	must(t, err)
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(f.run.addr(bridgeAddr)+":0")))
	must(t, err)
	t.Cleanup(func() { _ = udp.Close() })
	return &forger{aead: aead, udp: udp, false: f.run.addr(250) + ":" + gossipPort}
}

// seal encrypts as memberlist does: version, nonce, sealed message.
func (f *forger) seal(message, extra []byte) []byte {
	nonce := make([]byte, f.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return f.aead.Seal(append([]byte{sealVersion}, nonce...), nonce, message, extra)
}

func (f *forger) packet(kind byte, body []byte) []byte {
	return f.seal(append([]byte{kind}, body...), nil)
}

func (f *forger) send(packet []byte, to string) {
	_, _ = f.udp.WriteToUDPAddrPort(packet, netip.MustParseAddrPort(to)) // a lost packet is no news
}

// member claims that somebody is at an address and says meta, with the highest
// incarnation there is.
func member(name, address string, meta []byte) []any {
	at := netip.MustParseAddrPort(address)
	return []any{"Incarnation", uint64(math.MaxUint32), "Addr", string(at.Addr().AsSlice()), "Port", uint64(at.Port()),
		"Meta", string(meta), "Vsn", string([]byte{1, 5, 2, 2, 5, 4}), "Node", name}
}

// lies are one packet each of everything that a holder of the key can claim.
func (f *forger) lies(names []string, round int) [][]byte {
	hint := gossip.Hint{Generation: math.MaxUint64, Revision: math.MaxUint64 - uint64(round%2)}.Encode()
	all := [][]byte{
		f.packet(aliveMessage, fields(member("impostor", f.false, hint)...)),
		f.packet(userMessage, append([]byte("install this"), hint...)),
	}
	for _, name := range append([]string{gossip.ServerName}, names...) {
		all = append(all, f.packet(aliveMessage, fields(member(name, f.false, hint)...)))
		for _, from := range []string{"impostor", name} { // from itself it is a leave
			all = append(all, f.packet(deadMessage, fields("Incarnation", uint64(math.MaxUint32), "Node", name, "From", from)))
		}
		all = append(all, f.packet(suspectMessage, fields("Incarnation", uint64(math.MaxUint32), "Node", name, "From", "impostor")))
	}
	return all
}

// flood sends lies to everybody, as fast as one core can, until stopped, and
// returns how many packets that were.
func (f *forger) flood(stop <-chan struct{}, packets [][]byte, to []string) int {
	for n := 0; ; n++ {
		if n%256 == 0 {
			select {
			case <-stop:
				return n
			default:
			}
		}
		f.send(packets[n%len(packets)], to[n%len(to)])
	}
}

// streams pushes a false table to everybody, one stream after the other, and
// returns how many were answered.
func (f *forger) streams(stop <-chan struct{}, names, to []string) int {
	table := f.table(names)
	for n := 0; ; {
		for _, address := range to {
			select {
			case <-stop:
				return n
			default:
			}
			if f.push(table, address) {
				n++
			}
		}
	}
}

// table is a whole state: everybody dead, the server elsewhere, and strangers.
func (f *forger) table(names []string) []byte {
	hint := gossip.Hint{Generation: math.MaxUint64, Revision: math.MaxUint64}.Encode()
	var states []byte
	count := 0
	add := func(name string, state uint64) {
		entry := member(name, f.false, hint)
		entry[len(entry)-2] = "Name"
		states = append(states, fields(append(entry, "State", state)...)...)
		count++
	}
	add(gossip.ServerName, stateAlive)
	for _, name := range names {
		add(name, stateDead)
	}
	for i := range 100 {
		add("stranger-"+string(rune('a'+i%26))+string(rune('a'+i/26)), stateAlive)
	}
	body := append([]byte{pushPullMessage}, fields("Nodes", uint64(count), "UserStateLen", uint64(0), "Join", uint64(0))...)
	body[len(body)-9] = 0xc2 // Join is a boolean
	body = append(body[:len(body)-8], states...)

	sealed := len(body) + 1 + f.aead.NonceSize() + f.aead.Overhead()
	head := binary.BigEndian.AppendUint32([]byte{sealedStream}, uint32(sealed))
	return append(head, f.seal(body, head)...)
}

// push sends the table over a stream and reads what is answered.
func (f *forger) push(table []byte, to string) bool {
	conn, err := net.DialTimeout("tcp", to, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return false
	}
	if _, err := conn.Write(table); err != nil {
		return false
	}
	n, _ := conn.Read(make([]byte, 1<<10))
	return n > 0
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

// attack is everything that the forger does at once, until it is ended.
type attack struct {
	stop chan struct{}
	wg   sync.WaitGroup
	once sync.Once
	// counted once it has ended
	toServer, toAll, streams int
}

// attack floods the server, and with another flood everybody, with lies and with
// replayed packets, and pushes false tables. The server is the first of to.
func (f *forger) attack(names, to []string, replayed [][]byte) *attack {
	a := &attack{stop: make(chan struct{})}
	var packets [][]byte
	for round := range 8 {
		packets = append(packets, f.lies(names, round)...)
	}
	packets = append(packets, replayed...)
	a.wg.Go(func() { a.toServer = f.flood(a.stop, packets, to[:1]) })
	a.wg.Go(func() { a.toAll = f.flood(a.stop, packets, to) })
	a.wg.Go(func() { a.streams = f.streams(a.stop, names, to) })
	return a
}

func (a *attack) end() {
	a.once.Do(func() { close(a.stop) })
	a.wg.Wait()
}
