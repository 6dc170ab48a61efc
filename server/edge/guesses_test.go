package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// bcryptTime is what one of the default cost takes, in simulated time.
const bcryptTime = 60 * time.Millisecond

// guarded is a sign-in whose bcrypt only takes its time, so that floods can be
// simulated; the costs of its calls are counted.
type guarded struct {
	*signIn
	people *people
	mu     sync.Mutex
	costs  []int
	now    int // bcrypts that run
	most   int // ran at once
}

// plainly is a hash that is none: the fake bcrypt reads the password in it.
func plainly(password string, cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%-53s", cost, password)
}

func newGuarded(passwords map[string]string) *guarded {
	g := &guarded{people: &people{hashes: map[string][]byte{}, dummy: plainly("\x00", bcrypt.DefaultCost)}}
	for name, password := range passwords {
		g.people.set(name, plainly(password, bcrypt.DefaultCost))
	}
	g.signIn = newSignIn(g.people.hash, func() []byte { return g.people.dummy })
	g.compare = g.fake
	return g
}

func (g *guarded) fake(hash, password []byte) error {
	cost, err := bcrypt.Cost(hash)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.costs = append(g.costs, cost)
	g.now++
	g.most = max(g.most, g.now)
	g.mu.Unlock()
	time.Sleep(bcryptTime >> bcrypt.DefaultCost << cost) // simulated
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
	if strings.TrimRight(string(hash[7:]), " ") != string(password) {
		return errors.New("wrong")
	}
	return nil
}

func (g *guarded) bcrypts() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.costs)
}

// rounds that were run since the last call.
func (g *guarded) rounds() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, cost := range g.costs {
		n += 1 << cost
	}
	g.costs = nil
	return n
}

func (g *guarded) try(t testing.TB, from, user, password string) string {
	t.Helper()
	result, wait, err := g.check(t.Context(), networkOf(from), user, password)
	must(t, err)
	if (result == limited) != (wait > 0) || wait > guessesPerAddress*forgiveEvery {
		t.Errorf("%s, to try again after %v", result, wait)
	}
	return result
}

func (g *guarded) want(t testing.TB, from, user, password, result string) {
	t.Helper()
	if got := g.try(t, from, user, password); got != result {
		t.Errorf("%s from %s: %s, want %s", user, from, got, result)
	}
}

// guess tries n wrong passwords that nobody tried before.
func (g *guarded) guess(t testing.TB, from, user string, n int) map[string]int {
	t.Helper()
	results := map[string]int{}
	for i := range n {
		results[g.try(t, from, user, fmt.Sprint("guess ", from, i))]++
	}
	return results
}

const (
	office = "192.0.2.1:1000"
	away   = "192.0.2.2:1000"
	bad    = "198.51.100.1:1000"
)

func attacker(i int) string { return fmt.Sprintf("10.%d.%d.%d:1000", i>>16, i>>8&255, i&255) }

// A wrong password takes as many bcrypts of the same cost whether its user exists.
func TestUnknownUserCostsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(map[string]string{"ann": "secret"})
		for i := range 3 * guessesPerAddress {
			password := fmt.Sprint("guess ", i)
			known, knownTook := took(func() string { return g.try(t, office, "ann", password) })
			knownCosts := fmt.Sprint(g.costs)
			g.costs = nil
			unknown, unknownTook := took(func() string { return g.try(t, away, "nobody", password) })
			if known != unknown || knownCosts != fmt.Sprint(g.costs) {
				t.Fatalf("guess %d: %s with bcrypts %s for a user, %s with %v for nobody", i, known, knownCosts, unknown, g.costs)
			}
			// What came before may have to be paid off first.
			if i < 2 && knownTook != unknownTook {
				t.Errorf("guess %d took %v for a user, %v for nobody", i, knownTook, unknownTook)
			}
			g.costs = nil
		}
	})
}

func took(do func() string) (string, time.Duration) {
	began := time.Now()
	result := do()
	return result, time.Since(began)
}

// Hashes of different costs are checked in as many rounds as the dearest.
func TestEveryCostTakesTheSameRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(nil)
		for cost := bcrypt.MinCost; cost <= bcrypt.DefaultCost; cost++ {
			g.people.set(fmt.Sprint("user-", cost), plainly("secret", cost))
		}
		g.try(t, office, "nobody", "wrong")
		want := g.rounds()
		for cost := bcrypt.MinCost; cost <= bcrypt.DefaultCost; cost++ {
			g.try(t, office, fmt.Sprint("user-", cost), "wrong")
			if got := g.rounds(); got != want {
				t.Errorf("a user's wrong password at cost %d takes %d rounds, nobody's %d", cost, got, want)
			}
		}
	})
}

func TestFloodFromOneAddress(t *testing.T) {
	for _, user := range []string{"ann", "nobody"} {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(map[string]string{"ann": "secret", "bob": "other"})
			g.want(t, office, "bob", "other", accepted)
			got := g.guess(t, bad, user, 10*guessesPerAddress)
			if got[refused] != guessesPerAddress || got[limited] != 9*guessesPerAddress || g.bcrypts() != 1+guessesPerAddress {
				t.Errorf("%v after %d bcrypts", got, g.bcrypts()-1)
			}
			g.want(t, bad, "ann", "secret", limited) // also when it guesses right
			g.want(t, bad, "bob", "other", limited)  // or what is in memory
			g.want(t, office, "bob", "other", remembered)
			g.want(t, office, "ann", "secret", accepted)
			time.Sleep(forgiveEvery) // simulated
			if got := g.guess(t, bad, user, 1); got[refused]+got[limited] != 1 {
				t.Errorf("%v", got)
			}
			time.Sleep(guessesPerAddress * forgiveEvery) // simulated
			g.want(t, bad, "ann", "secret", remembered)
		})
	}
}

// Guesses that are on their way at the same time count as well.
func TestFloodAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(map[string]string{"ann": "secret"})
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() { g.try(t, bad, fmt.Sprint("user-", i%7), fmt.Sprint("guess ", i)) })
		}
		all.Wait()
		if n := g.bcrypts(); n < guessesPerAddress || n >= guessesPerAddress+g.queue.slots {
			t.Errorf("%d bcrypts, want %d", n, guessesPerAddress)
		}
		if len(g.flights) != 0 || g.queue.running+len(g.queue.waiting) != 0 {
			t.Error("something is left in the queue")
		}
	})
}

// Many addresses cannot lock a user out, and guess little.
func TestFloodOfOneUser(t *testing.T) {
	for _, user := range []string{"ann", "nobody"} {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(map[string]string{"ann": "secret"})
			g.want(t, office, "ann", "secret", accepted)
			before := g.bcrypts()
			taken := map[string]int{}
			const addresses = 200
			for range 5 {
				for i := range addresses {
					for result, n := range g.guess(t, attacker(i), user, 1) {
						taken[result] += n
					}
				}
			}
			// One each, and a few until the user's are used up and as they are forgiven.
			most := addresses + guessesPerUser
			if n := g.bcrypts() - before; n > most || taken[limited] == 0 {
				t.Errorf("%d bcrypts, want %d at most; %v", n, most, taken)
			}
			if user == "ann" {
				for i := 0; g.try(t, attacker(1), user, fmt.Sprint("more ", i)) != limited; i++ {
				}
				g.want(t, attacker(1), "ann", "secret", limited) // also when it guesses right
			}
			g.want(t, away, "ann", "secret", remembered)
			g.mu.Lock()
			g.good = map[string]success{} // as after a start
			g.mu.Unlock()
			g.want(t, "192.0.2.3:1", "ann", "secret", accepted)
		})
	}
}

// flood has so many connections guess until the end, each from an address of its own
// and at different users, and returns what waits for their end.
func (g *guarded) flood(ctx context.Context, connections int, addressOf func(connection, try int) string) (wait func()) {
	var all sync.WaitGroup
	for c := range connections {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				user := fmt.Sprint("user-", (c+i)%10)
				_, _, _ = g.check(ctx, networkOf(addressOf(c, i)), user, fmt.Sprint("guess ", c, " ", i))
				time.Sleep(50 * time.Millisecond) // simulated
			}
		})
	}
	return all.Wait
}

// Wrong passwords take their share of the processors and no more, wherever they come
// from, and who comes from elsewhere is let in meanwhile.
func TestFloodLeavesTheProcessors(t *testing.T) {
	for what, c := range map[string]struct {
		addressOf func(connection, try int) string
		bound     time.Duration // of a new sign-in
	}{
		"one address":    {func(int, int) string { return bad }, time.Second},
		"many addresses": {func(c, _ int) string { return attacker(c) }, time.Second},
		// Then nothing tells it from the others: each waits for all.
		"always a new one": {func(c, i int) string { return attacker(c<<16 + i) }, 32 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			users := map[string]string{"user-0": "secret", "user-1": "secret"}
			for i := range 60 {
				users[fmt.Sprint("new-", i)] = "secret"
			}
			g := newGuarded(users)
			g.want(t, office, "user-0", "secret", accepted)
			ctx, end := context.WithCancel(t.Context())
			wait := g.flood(ctx, 32, c.addressOf)
			began := time.Now()
			longest := time.Duration(0)
			time.Sleep(time.Minute) // simulated: until each address has given its first
			for i := range 30 {
				time.Sleep(10 * time.Second) // simulated
				g.want(t, office, "user-0", "secret", remembered)
				result, tookNew := took(func() string { return g.try(t, fmt.Sprintf("192.0.2.%d:1", 10+i), fmt.Sprint("new-", 2*i), "secret") })
				atOffice, tookAtOffice := took(func() string { return g.try(t, office, fmt.Sprint("new-", 2*i+1), "secret") })
				if atOffice != accepted || tookAtOffice > 2*bcryptTime {
					t.Errorf("%s: new-%d at a known address: %s after %v", what, 2*i+1, atOffice, tookAtOffice)
				}
				if longest = max(longest, tookNew); result != accepted || tookNew > c.bound {
					t.Errorf("%s: new-%d: %s after %v", what, 2*i, result, tookNew)
				}
			}
			end()
			wait()
			processors, elapsed := float64(runtime.GOMAXPROCS(0)), time.Since(began)
			// Beside what wrong passwords may take, there are the right ones; those that
			// run at the same moment are charged together.
			most := processors*(wrongAtOnce.Seconds()+wrongShare*elapsed.Seconds())/bcryptTime.Seconds() + float64(g.queue.slots) + 61
			if n := float64(g.bcrypts()); n > most*1.05 || g.most > g.queue.slots {
				t.Errorf("%s: %.0f bcrypts, want %.0f at most; %d at once, want %d", what, n, most, g.most, g.queue.slots)
			}
			t.Logf("%s: %d bcrypts in %v, a new sign-in took %v at most", what, g.bcrypts(), elapsed, longest)
		})
	}
}

// Who was signed in at an address goes on there when others use up its guesses, until
// somebody there tries too many passwords for the one in memory.
func TestGuessesAtTheSameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(map[string]string{"ann": "secret", "bob": "other"})
		g.want(t, office, "ann", "secret", accepted)
		g.want(t, away, "bob", "other", accepted)
		g.guess(t, office, "nobody", guessesPerAddress)
		g.want(t, office, "ann", "secret", remembered)
		g.want(t, office, "bob", "other", limited)
		time.Sleep(rememberFor) // simulated: both have to be checked again
		g.guess(t, office, "nobody", 2*guessesPerAddress)
		g.want(t, office, "ann", "secret", accepted)
		before := g.bcrypts()
		if got := g.guess(t, office, "ann", guessesInMemory-1); got[limited] != guessesInMemory-1 {
			t.Errorf("%v", got)
		}
		g.want(t, office, "ann", "secret", remembered)
		g.guess(t, office, "ann", guessesInMemory)
		g.want(t, office, "ann", "secret", limited)
		g.want(t, away, "ann", "secret", remembered)
		if n := g.bcrypts() - before; n != 0 {
			t.Errorf("%d bcrypts", n)
		}
		time.Sleep(2 * forgiveEvery) // simulated
		g.want(t, office, "ann", "secret", remembered)
	})
}

// Hosts that go on with an old password are no attack: none is locked out with them.
func TestOldPasswordsAreNoGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(map[string]string{"ann": "old"})
		for i := range 2 * guessesPerUser { // changed, removed and made anew
			name := fmt.Sprint("user-", i)
			g.people.set(name, plainly("old", bcrypt.DefaultCost))
			g.want(t, office, name, "old", accepted)
			g.people.remove(name)
			g.want(t, office, name, "old", refused)
			g.people.set(name, plainly("new", bcrypt.DefaultCost))
			g.want(t, office, name, "old", refused)
			g.want(t, office, name, "new", accepted)
		}
		before := g.bcrypts()
		for range 10 * guessesPerUser { // after a start, say
			g.want(t, away, "ann", "older", refused)
		}
		g.want(t, away, "ann", "old", accepted)
		if n := g.bcrypts() - before; n != 2 {
			t.Errorf("%d bcrypts", n)
		}
	})
}

// Who floods cannot make memory grow.
func TestGuessesAreBounded(t *testing.T) {
	g := newGuarded(nil)
	long := strings.Repeat("x", maxAuthorization)
	for i := range 2 * maxHomes {
		a := &claim{from: networkOf(attacker(i)), user: fmt.Sprint(long, i), digest: digest{byte(i), byte(i >> 8), 1}}
		g.guesses.note(a, true)
		g.guesses.settle(a)
	}
	for what, c := range map[string]struct{ got, want int }{
		"addresses": {g.guesses.addresses.Len(), maxTallies}, "users": {g.guesses.users.Len(), maxTallies}, "wrong": {g.guesses.wrong.Len(), maxWrong},
		"homes": {g.guesses.homes.Len(), maxHomes}, "users with homes": {len(g.guesses.homesOf), maxHomes},
	} {
		if c.got != c.want {
			t.Errorf("%d %s, want %d", c.got, what, c.want)
		}
	}
}

// One user with many addresses drives out nobody's home, and is trusted at few.
func TestHomesOfAUserAreFew(t *testing.T) {
	g := newGuarded(nil)
	ann := &claim{from: networkOf("192.0.2.1:1"), user: "ann"}
	g.guesses.settle(ann)
	for i := range 2 * maxHomes {
		g.guesses.settle(&claim{from: networkOf(attacker(i)), user: "eve"})
	}
	if !g.guesses.homes.Contains(g.guesses.home(ann)) {
		t.Error("ann's home is gone")
	}
	if n := g.guesses.homes.Len(); n != 1+homesOfUser {
		t.Errorf("%d homes, want %d", n, 1+homesOfUser)
	}
}

// bcrypt takes p, p\0p and so on for the same; each of them would miss the memory.
func TestPasswordsWithZeroCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(map[string]string{"ann": "secret"})
		g.want(t, "192.0.2.1:1", "ann", "secret", accepted)
		before := g.bcrypts()
		for _, alias := range []string{"secret\x00", "secret\x00secret", "\x00"} {
			g.want(t, "192.0.2.1:1", "ann", alias, refused)
		}
		if n := g.bcrypts() - before; n != 0 {
			t.Errorf("%d bcrypts", n)
		}
	})
}

// However long wrong passwords were tried, others wait for a bounded time after them.
func TestDebtIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		for range 10_000 {
			q.charge(bcryptTime)
		}
		most := time.Duration(float64((maxDebt+1)*q.wrong.Burst()) / float64(q.wrong.Limit()) * float64(time.Second))
		if debt := q.wrong.ReserveN(time.Now(), 0).Delay(); debt > most {
			t.Errorf("%v, want %v at most", debt, most)
		}
	})
}

func TestNetworks(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80":                    "192.0.2.1",
		"[::ffff:192.0.2.1]:80":           "192.0.2.1",
		"[2001:db8:1:2::1]:80":            "2001:db8:1:2::",
		"[2001:db8:1:2:ffff:ffff:1:1]:80": "2001:db8:1:2::",
		"[2001:db8:1:3::1]:80":            "2001:db8:1:3::",
		"[fe80::1%eth0]:80":               "fe80::",
	} {
		if got := networkOf(remote); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", remote, got, want)
		}
	}
	if networkOf("bufconn").IsValid() {
		t.Error("a connection in memory has an address")
	}
}
