package edge

import (
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

const (
	// guessesPerAddress is how many wrong passwords an address may give in a row:
	// more than a person mistypes, and one address may be that of many machines.
	guessesPerAddress = 20
	// guessesPerUser is how many wrong passwords one user may get, from wherever,
	// before only addresses without any may sign it in anew.
	guessesPerUser = 50
	// guessesInMemory is how many wrong passwords a user may get from an address of
	// its own that may give no more: they are compared with the one in memory only, at
	// no cost, and nobody shall try a dictionary that way.
	guessesInMemory = 100
	// forgiveEvery is after how long one wrong password more may be given: 1,440 a day.
	forgiveEvery = time.Minute
	// maxTallies bounds each table of addresses and users; 2 MB when full. Who fills one
	// drives out others' tallies, which takes hundreds of addresses.
	maxTallies = 8192
	// maxHomes bounds the table of where users were signed in; 4 MB when full. Of one
	// user it takes homesOfUser, so that nobody drives out others; those of many more
	// hosts are known by their right password.
	maxHomes, homesOfUser = 32_768, 64
	// maxWrong bounds the memory of wrong passwords; 1 MB when full.
	maxWrong = 8192
	// homeBits of an IPv6 address are one network, all of whose addresses one machine
	// can have.
	homeBits = 64
)

// guesses counts wrong passwords by address and by user, so that guessing ends
// before it costs a bcrypt. Nobody is locked out by others: a user that gets too many
// is still signed in from an address that gave none, and at an address that gave too
// many those go on who were signed in there. Whether a user exists makes no difference
// to anything here.
//
// Addresses are those of the connections. What a proxy says in a header anybody can
// say, so behind one all clients are one address.
//
// Whoever calls holds a lock: for reading in methods that only look.
type guesses struct {
	seed      maphash.Seed // names that clients make up may be long, so hashes stand for them
	addresses *simplelru.LRU[netip.Addr, *rate.Limiter]
	users     *simplelru.LRU[uint64, *rate.Limiter]
	homes     *simplelru.LRU[home, *rate.Limiter]
	// How many of homes a user has, and an address.
	homesOf map[uint64]int
	homesAt map[netip.Addr]int
	// wrong passwords, so that a host that repeats an old one guesses once and costs
	// one bcrypt. Their digests cover the user's hash, as those of right ones do.
	wrong *simplelru.LRU[digest, struct{}]
}

// home is an address at which a user was signed in.
type home struct {
	user    uint64
	address netip.Addr
}

func newGuesses() guesses {
	g := guesses{
		seed: maphash.MakeSeed(), addresses: newLRU[netip.Addr, *rate.Limiter](maxTallies, nil),
		users: newLRU[uint64, *rate.Limiter](maxTallies, nil), homesOf: map[uint64]int{}, homesAt: map[netip.Addr]int{}, wrong: newLRU[digest, struct{}](maxWrong, nil),
	}
	g.homes = newLRU(maxHomes, func(h home, _ *rate.Limiter) {
		less(g.homesOf, h.user)
		less(g.homesAt, h.address)
	})
	return g
}

func newLRU[K comparable, V any](size int, gone func(K, V)) *simplelru.LRU[K, V] {
	lru, _ := simplelru.NewLRU(size, gone) // fails for a size below 1 only
	return lru
}

// networkOf is what counts as one address: that of the connection, or the first
// half of it in IPv6. Connections in memory have none and share one.
func networkOf(remote string) netip.Addr {
	address := addressOf(remote)
	if !address.Is6() {
		return address
	}
	network, _ := address.Prefix(homeBits) // an IPv6 address has so many bits
	return network.Addr()
}

// wait is how long a may not be tried; 0: it may. right says that the password is
// the one in memory: then it may, too, where its user was signed in before.
func (g *guesses) wait(a *claim, right bool) time.Duration {
	wait := g.spent(a)
	if wait == 0 {
		return 0
	}
	at, ok := g.homes.Peek(g.home(a))
	if !ok || at.Tokens() < 1 {
		return wait
	}
	if right {
		return 0
	}
	if !g.wrong.Contains(a.digest) { // else it cannot be right, and is none more
		at.Allow()
	}
	return wait
}

// spent is how long a's address, or its user at such an address, has no guess left.
func (g *guesses) spent(a *claim) time.Duration {
	address, ok := g.addresses.Peek(a.from)
	if !ok {
		return 0
	}
	clean := due(address, guessesPerAddress)
	if clean == 0 {
		return 0
	}
	if wait := due(address, 1); wait > 0 {
		return wait
	}
	user, ok := g.users.Peek(g.name(a.user))
	if !ok {
		return 0
	}
	return min(clean, due(user, 1))
}

// rank of a in the queue: addresses at which somebody was signed in go first, until
// they give wrong passwords.
func (g *guesses) rank(a *claim) int {
	if address, ok := g.addresses.Peek(a.from); ok && due(address, guessesPerAddress) > 0 {
		return max(1, guessesPerAddress-int(address.Tokens()))
	}
	if g.homesAt[a.from] > 0 {
		return rankTrusted
	}
	return rankUnknown
}

// note counts a, which was wrong; not when it is known to be no guess.
func (g *guesses) note(a *claim, guess bool) {
	g.wrong.Add(a.digest, struct{}{})
	if guess {
		count(g.addresses, a.from, guessesPerAddress)
		count(g.users, g.name(a.user), guessesPerUser)
	}
}

// settled says that settle has nothing to do.
func (g *guesses) settled(a *claim) bool {
	at := g.home(a)
	return g.homes.Contains(at) || g.homesOf[at.user] >= homesOfUser
}

// settle makes a's address one where its user was signed in.
func (g *guesses) settle(a *claim) {
	if at := g.home(a); g.homesOf[at.user] < homesOfUser && !g.homes.Contains(at) {
		g.homes.Add(at, newTally(guessesInMemory))
		g.homesOf[at.user]++
		g.homesAt[at.address]++
	}
}

// limited is how many addresses and users have no guess left.
func (g *guesses) limited() (addresses, users int) {
	for _, t := range g.addresses.Values() {
		if due(t, 1) > 0 {
			addresses++
		}
	}
	for _, t := range g.users.Values() {
		if due(t, 1) > 0 {
			users++
		}
	}
	return addresses, users
}

func (g *guesses) home(a *claim) home { return home{g.name(a.user), a.from} }

func (g *guesses) name(user string) uint64 { return maphash.String(g.seed, user) }

// less counts down and forgets what is at 0.
func less[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] == 0 {
		delete(counts, k)
	}
}

func newTally(burst int) *rate.Limiter { return rate.NewLimiter(rate.Every(forgiveEvery), burst) }

func count[K comparable](tallies *simplelru.LRU[K, *rate.Limiter], who K, burst int) {
	t, ok := tallies.Get(who)
	if !ok {
		t = newTally(burst)
		tallies.Add(who, t)
	}
	t.Allow() // with none left, those that were tried at the same moment cost nothing more
}

// due is how long it takes until a tally has n.
func due(t *rate.Limiter, n int) time.Duration {
	missing := float64(n) - t.Tokens()
	if missing <= 1e-6 { // what sums of fractions miss
		return 0
	}
	return time.Duration(missing * float64(forgiveEvery))
}
