package edge

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxClients bounds each of the two tables of addresses: more than the hosts
// that one registry serves behind one server, and about 200 kB when full.
const maxClients = 1000

// Client is an address that used the registry, or refused its certificate.
// Addresses are all that the edge knows: machines behind one NAT, proxy or load
// balancer share one and cannot be told apart.
type Client struct {
	Address netip.Addr
	// LastSeen is when it last did either.
	LastSeen time.Time
	// Requests of signed-in users that were answered below 400.
	Requests uint64
	// Refusals are handshakes that the client ended because of the certificate.
	Refusals uint64
}

// Clients lists, in no order, the addresses seen since then. It remembers the
// 1,000 that last made a request and the 1,000 that last refused a certificate,
// from this edge's start on, and counts from when it began to remember each.
// What hosts do to prove what they trust is neither. A client is seen to refuse
// only if it says so in the handshake, as Docker, containerd, skopeo and OpenSSL
// do; some programs just hang up afterwards.
func (e *Edge) Clients(since time.Time) []Client {
	found := map[netip.Addr]Client{}
	e.clients.requests.each(since, func(address netip.Addr, s sighting) {
		found[address] = Client{Address: address, LastSeen: s.last, Requests: s.count}
	})
	e.clients.refusals.each(since, func(address netip.Addr, s sighting) {
		c := found[address]
		c.Address, c.Refusals = address, s.count
		if s.last.After(c.LastSeen) {
			c.LastSeen = s.last
		}
		found[address] = c
	})
	list := make([]Client, 0, len(found))
	for _, c := range found {
		list = append(list, c)
	}
	return list
}

// Forget drops what was seen of an address (HOST:PORT; another form is none).
// What it does from now on is remembered again.
func (e *Edge) Forget(address string) {
	if ip := addressOf(address); ip.IsValid() {
		e.clients.requests.forget(ip)
		e.clients.refusals.forget(ip)
	}
}

// clients are two tables, so that nobody without a password can push those who
// pull out of memory by refusing certificates from many addresses.
type clients struct{ requests, refusals *sightings }

func newClients() clients { return clients{newSightings(), newSightings()} }

// sightings are how often and when addresses did one thing; who was not seen
// for the longest time goes first. One lock serves all: noting a request takes
// less than 1 µs, which no registry's load can make it wait for.
type sightings struct {
	mu   sync.Mutex
	seen *simplelru.LRU[netip.Addr, *sighting]
}

type sighting struct {
	last  time.Time
	count uint64
}

func newSightings() *sightings {
	seen, _ := simplelru.NewLRU[netip.Addr, *sighting](maxClients, nil) // fails for a size below 1 only
	return &sightings{seen: seen}
}

func (s *sightings) note(address netip.Addr) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.seen.Get(address)
	if !ok {
		known = &sighting{}
		s.seen.Add(address, known)
	}
	known.last = now
	known.count++
}

func (s *sightings) forget(address netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.Remove(address)
}

func (s *sightings) each(since time.Time, do func(netip.Addr, sighting)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, address := range s.seen.Keys() {
		if known, ok := s.seen.Peek(address); ok && !known.last.Before(since) {
			do(address, *known)
		}
	}
}

// addressOf is the IP address in HOST:PORT, the same for both spellings of an
// IPv4 address; invalid for anything else, like a connection in memory.
func addressOf(hostport string) netip.Addr {
	at, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// answered remembers who made a request that a user was let in for.
func (c clients) answered(remote string, code int) {
	if code >= 400 {
		return
	}
	if address := addressOf(remote); address.IsValid() {
		c.requests.note(address)
	}
}
