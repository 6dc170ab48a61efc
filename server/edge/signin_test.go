package edge

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// counted is a sign-in whose bcrypts are counted and can be held.
type counted struct {
	*signIn
	*people
	calls atomic.Int64
	held  chan struct{} // receives before each bcrypt when not nil
}

func newCounted(t testing.TB, passwords map[string]string) *counted {
	t.Helper()
	c := &counted{people: newPeople(t, passwords)}
	c.signIn = newSignIn(c.people.hash, func() []byte { return c.people.dummy })
	c.compare = func(hash, password []byte) error {
		c.calls.Add(1)
		if c.held != nil {
			<-c.held
		}
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return c
}

// here is where sign-ins come from that do not say.
var here = networkOf("192.0.2.1:1")

// want signs in and checks the result and how many bcrypts it took.
func (c *counted) want(t testing.TB, user, password, result string, bcrypts int64) {
	t.Helper()
	before := c.calls.Load()
	got, _, err := c.check(context.Background(), here, user, password)
	must(t, err)
	if took := c.calls.Load() - before; got != result || took != bcrypts {
		t.Errorf("%s: %s after %d bcrypts, want %s after %d", user, got, took, result, bcrypts)
	}
}

func TestBcryptOnce(t *testing.T) {
	c := newCounted(t, map[string]string{"ann": "secret", "bob": "other"})
	c.want(t, "ann", "secret", accepted, 1)
	c.want(t, "ann", "secret", remembered, 0)
	c.want(t, "ann", "wrong", refused, 1)
	c.want(t, "ann", "wrong", refused, 0) // which is known by now
	c.want(t, "bob", "secret", refused, 1)
	c.want(t, "ann", "secret", remembered, 0)
	c.want(t, "nobody", "secret", refused, 1) // as dear as a known user
	c.want(t, "nobody", "secret", refused, 0)
	c.want(t, "nobody", "other", refused, 1)
	c.want(t, "", "", anonymous, 0)
	c.want(t, "ann", "", refused, 0)
	c.want(t, "", "secret", refused, 0)
}

// bcrypt reads 72 bytes and passes over the rest.
func TestOverlongPassword(t *testing.T) {
	full := strings.Repeat("x", maxPassword)
	c := newCounted(t, map[string]string{"ann": full})
	c.want(t, "ann", full+"y", refused, 0)
	c.want(t, "nobody", full+"y", refused, 0)
	c.want(t, "ann", full, accepted, 1)
}

func TestChangedAndRemovedUser(t *testing.T) {
	c := newCounted(t, map[string]string{"ann": "secret"})
	c.want(t, "ann", "secret", accepted, 1)
	c.set("ann", hashOf(t, "changed"))
	c.want(t, "ann", "secret", refused, 1)
	c.want(t, "ann", "changed", accepted, 1)
	c.want(t, "ann", "changed", remembered, 0)
	c.remove("ann")
	c.want(t, "ann", "changed", refused, 1)
	c.set("ann", hashOf(t, "changed")) // the same password under a new hash
	c.want(t, "ann", "changed", accepted, 1)
}

// The time of a refusal does not tell users with a cheap hash from nobody.
func TestCheapHashCostsAsMuch(t *testing.T) {
	c := newCounted(t, map[string]string{"cheap": "secret"})
	dear, err := bcrypt.GenerateFromPassword([]byte("dummy"), bcrypt.MinCost+1)
	must(t, err)
	c.people.dummy = dear
	c.want(t, "cheap", "wrong", refused, 2)
	c.want(t, "nobody", "wrong", refused, 1)
	c.want(t, "cheap", "secret", accepted, 1)
}

func TestDummyLetsNobodyIn(t *testing.T) {
	c := newCounted(t, nil)
	c.people.dummy = hashOf(t, "dummy")
	c.want(t, "nobody", "dummy", refused, 1)
	c.want(t, "nobody", "dummy", refused, 0)
}

func TestDigestKeepsPartsApart(t *testing.T) {
	c := newCounted(t, nil)
	seen := map[digest][3]string{}
	for _, parts := range [][3]string{{"ab", "c", "h"}, {"a", "bc", "h"}, {"abc", "", "h"}, {"ab", "ch", ""}, {"ab", "c", "i"}} {
		d := c.digest(parts[0], parts[1], []byte(parts[2]))
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", parts, other)
		}
		seen[d] = parts
	}
	if newCounted(t, nil).digest("ab", "c", []byte("h")) == c.digest("ab", "c", []byte("h")) {
		t.Error("two processes have one key")
	}
}

// checkAll signs in n times at once and returns the results when all are there.
func (c *counted) checkAll(n int, credentials func(i int) (user, password string)) func() map[string]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	results := map[string]int{}
	for i := range n {
		all.Go(func() {
			user, password := credentials(i)
			result, _, _ := c.check(context.Background(), here, user, password)
			mu.Lock()
			defer mu.Unlock()
			results[result]++
		})
	}
	return func() map[string]int {
		all.Wait()
		return results
	}
}

func TestEqualSignInsShareOne(t *testing.T) {
	for password, want := range map[string]string{"secret": accepted, "wrong": refused} {
		synctest.Test(t, func(t *testing.T) {
			c := newCounted(t, map[string]string{"ann": "secret"})
			c.held = make(chan struct{})
			wait := c.checkAll(20, func(int) (string, string) { return "ann", password })
			synctest.Wait() // all have come
			close(c.held)
			if got := wait(); c.calls.Load() != 1 || got[want] != 20 {
				t.Errorf("%d bcrypts for 20 equal sign-ins with %q: %v", c.calls.Load(), password, got)
			}
			if len(c.flights) != 0 {
				t.Errorf("%d flights are left", len(c.flights))
			}
		})
	}
}

func TestBcryptsAtOnceAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passwords := map[string]string{}
		for i := range 20 {
			passwords[fmt.Sprint("u", i)] = "secret"
		}
		c := newCounted(t, passwords)
		c.held = make(chan struct{})
		wait := c.checkAll(20, func(i int) (string, string) { return fmt.Sprint("u", i), "secret" })
		synctest.Wait()
		if n := int(c.calls.Load()); n != c.queue.slots {
			t.Errorf("%d bcrypts run at once, want %d", n, c.queue.slots)
		}
		close(c.held)
		if got := wait(); got[accepted] != 20 {
			t.Errorf("results %v", got)
		}
	})
}

// A client that goes away while it waits for a slot takes nobody with it.
func TestClientGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, map[string]string{"ann": "secret", "bob": "other"})
		c.queue.slots = 1
		c.held = make(chan struct{})
		first := c.checkAll(1, func(int) (string, string) { return "bob", "other" })
		synctest.Wait() // bob has the slot
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, _, err := c.check(ctx, here, "ann", "secret")
			left <- err
		}()
		synctest.Wait() // she is the first for this digest
		others := c.checkAll(3, func(int) (string, string) { return "ann", "secret" })
		synctest.Wait()
		leave()
		if err := <-left; err == nil {
			t.Error("the client that left was answered")
		}
		close(c.held)
		if got := first(); got[accepted] != 1 {
			t.Errorf("bob: %v", got)
		}
		if got := others(); got[accepted]+got[remembered] != 3 || c.calls.Load() != 2 {
			t.Errorf("the others: %v after %d bcrypts in all", got, c.calls.Load())
		}
	})
}

func TestRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, map[string]string{"ann": "secret"})
		c.want(t, "ann", "secret", accepted, 1)
		time.Sleep(rememberFor - time.Second) // simulated
		c.want(t, "ann", "secret", remembered, 0)
		time.Sleep(time.Second)
		c.want(t, "ann", "secret", accepted, 1)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, nil)
		for i := range maxRemembered / 2 {
			c.remember(fmt.Sprint("old", i), success{digest: digest{}, expires: time.Now().Add(rememberFor)})
		}
		time.Sleep(rememberFor) // simulated
		for i := range maxRemembered {
			c.remember(fmt.Sprint("new", i), success{digest: digest{1}, expires: time.Now().Add(rememberFor)})
		}
		if _, ok := c.good["old0"]; ok || len(c.good) != maxRemembered {
			t.Errorf("%d are remembered, the expired ones among them: %v", len(c.good), ok)
		}
		c.remember("one more", success{digest: digest{2}, expires: time.Now().Add(rememberFor)})
		if _, ok := c.good["one more"]; !ok || len(c.good) != maxRemembered {
			t.Errorf("%d are remembered, the newest among them: %v", len(c.good), ok)
		}
	})
}

func TestUserRemovedWhileConnected(t *testing.T) {
	f := newFront(t, ok)
	client := f.client(t)
	if got := get(t, client, "/v2/", "ann", "secret"); got.StatusCode != http.StatusOK {
		t.Fatalf("ann: %s", got.Status)
	}
	f.people.remove("ann")
	if got := get(t, client, "/v2/", "ann", "secret"); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("removed ann: %s", got.Status)
	}
}

func BenchmarkSignInRemembered(b *testing.B) {
	c := newCounted(b, map[string]string{"ann": "secret"})
	c.want(b, "ann", "secret", accepted, 1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if result, _, err := c.check(context.Background(), here, "ann", "secret"); result != remembered || err != nil {
				b.Errorf("%s, %v", result, err)
				return
			}
		}
	})
}
