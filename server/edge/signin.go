package edge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// rememberFor is how long a good password is known without bcrypt. A thousand
	// users then cost 1.6 % of a core at bcrypt's default cost. It does not delay
	// a changed or removed user: the digest covers the hash.
	rememberFor = time.Hour
	// maxRemembered bounds the memory of good passwords, one a user of about
	// 150 bytes; with more users, some pay bcrypt more often.
	maxRemembered = 10_000
	// maxPassword is what bcrypt reads (bytes). It passes over the rest, so a
	// longer one would be taken for its beginning.
	maxPassword = 72
)

// What a sign-in came to, as the metrics name it.
const (
	remembered = "remembered"
	accepted   = "accepted"
	refused    = "refused"
	limited    = "limited"
	anonymous  = "anonymous"
)

// signIn checks passwords: with bcrypt once, then by a keyed digest in memory.
//
// The digest is HMAC-SHA256 under a key that only this process has, over user,
// password and the user's hash as it is now. So what is remembered is of no use
// outside, and stops counting the moment the hash changes.
type signIn struct {
	hash    func(user string) ([]byte, bool)
	dummy   func() []byte
	compare func(hash, password []byte) error // bcrypt; tests count its calls

	macs  *sync.Pool // of *mac under the process's key
	queue queue      // of what needs bcrypt

	mu      sync.RWMutex
	good    map[string]success // by user: only one password is right at a time
	flights map[digest]*flight // bcrypts that run or wait for a slot
	guesses guesses
}

// claim is who a client says it is.
type claim struct {
	from           netip.Addr // networkOf the client
	user, password string
	hash           []byte // the dummy if nobody has that name
	exists         bool
	digest         digest
}

// success is a password that bcrypt found right.
type success struct {
	digest  digest
	said    digest // of user and password alone: still the same after the hash changed
	expires time.Time
}

// flight is one bcrypt that equal sign-ins share.
type flight struct {
	done chan struct{} // closed when it ended
	// Set before done is closed. A flight that is not decided was given up by
	// its client, or may not be tried; another one takes its place.
	decided, ok bool
}

func newSignIn(current func(string) ([]byte, bool), dummy func() []byte) *signIn {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return &signIn{
		hash: current, dummy: dummy, compare: bcrypt.CompareHashAndPassword,
		macs:    newMACs(key),
		queue:   newQueue(),
		good:    map[string]success{},
		flights: map[digest]*flight{},
		guesses: newGuesses(),
	}
}

// check says what the sign-in from an address (see networkOf) came to, and for a
// limited one when to try again. Equal ones at the same time share one bcrypt,
// different ones wait in a queue; the only error is that of ctx ending meanwhile. An
// unknown user takes the same way as a wrong password.
func (s *signIn) check(ctx context.Context, from netip.Addr, user, password string) (result string, wait time.Duration, err error) {
	switch {
	case user == "" && password == "":
		return anonymous, 0, nil
	case user == "" || password == "" || len(password) > maxPassword || strings.ContainsRune(password, 0):
		// bcrypt repeats a password and a zero byte: another one with a zero in it may
		// open as well, and would never be the one in memory.
		return refused, 0, nil
	}
	a := &claim{from: from, user: user, password: password}
	if a.hash, a.exists = s.hash(user); !a.exists {
		a.hash = s.dummy()
	}
	a.digest = s.digest(user, password, a.hash)
	if result, wait := s.glance(a); result != "" {
		return result, wait, nil
	}
	for {
		f, first, result, wait := s.join(a)
		if result != "" {
			return result, wait, nil
		}
		if first {
			if err := s.fly(ctx, f, a); errors.Is(err, errQueue) {
				return limited, fullQueue, nil
			}
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return refused, 0, ctx.Err()
		}
		switch {
		case f.ok:
			return accepted, 0, nil
		case f.decided:
			return refused, 0, nil
		case ctx.Err() != nil:
			return refused, 0, ctx.Err()
		}
	}
}

// glance is the way of most requests: what memory says of a, which many can ask at
// once; "" is nothing.
func (s *signIn) glance(a *claim) (result string, wait time.Duration) {
	s.mu.RLock()
	result, wait = s.recall(a)
	moved := result == remembered && !s.guesses.settled(a)
	s.mu.RUnlock()
	if moved {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.guesses.settle(a)
	}
	return result, wait
}

// recall is glance while mu is held, for reading at least. The limits come first, or
// guessing would be free for passwords that are in memory.
func (s *signIn) recall(a *claim) (result string, wait time.Duration) {
	right, fresh := s.remembers(a)
	if wait := s.guesses.wait(a, right); wait > 0 {
		return limited, wait
	}
	switch {
	case fresh:
		return remembered, 0
	case !right && s.guesses.wrong.Contains(a.digest):
		return refused, 0
	}
	return "", 0
}

// remembers says whether a was right before, and whether that is fresh enough to
// let it in; mu is held.
func (s *signIn) remembers(a *claim) (right, fresh bool) {
	got, ok := s.good[a.user]
	right = ok && hmac.Equal(got.digest[:], a.digest[:])
	return right, right && time.Now().Before(got.expires)
}

// join returns the flight for a, which the caller has to fly if it is the first, or
// what memory has come to say of it.
func (s *signIn) join(a *claim) (f *flight, first bool, result string, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.flights[a.digest]; ok {
		return f, false, "", 0
	}
	if result, wait := s.recall(a); result != "" {
		return nil, false, result, wait
	}
	f = &flight{done: make(chan struct{})}
	s.flights[a.digest] = f
	return f, true, "", 0
}

// fly waits for its turn and decides f, or gives it up when ctx ends before, or its
// address has used up its guesses meanwhile. With errQueue it may not wait.
func (s *signIn) fly(ctx context.Context, f *flight, a *claim) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.flights, a.digest)
		close(f.done)
	}()
	if err := s.queue.turn(ctx, func() int { return s.rank(a) }); err != nil {
		return err
	}
	defer s.queue.leave()
	s.mu.RLock()
	result, _ := s.recall(a)
	s.mu.RUnlock()
	if result != "" {
		return nil
	}
	began := time.Now()
	f.ok = s.matches(a)
	f.decided = true
	if !f.ok {
		s.queue.charge(time.Since(began))
	}
	s.keep(a, f.ok)
	return nil
}

// rank of a in the queue.
func (s *signIn) rank(a *claim) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if right, _ := s.remembers(a); right { // which is no guess
		return rankTrusted
	}
	return s.guesses.rank(a)
}

// keep remembers what bcrypt said.
func (s *signIn) keep(a *claim, ok bool) {
	said := s.digest(a.user, a.password, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		s.remember(a.user, success{digest: a.digest, said: said, expires: time.Now().Add(rememberFor)})
		s.guesses.settle(a)
		return
	}
	// Hosts go on with a password that was right when it has been changed.
	old, known := s.good[a.user]
	s.guesses.note(a, !known || !hmac.Equal(old.said[:], said[:]))
}

// remember keeps what is right for user; mu is held. When it is full, whatever has
// expired goes, else anything.
func (s *signIn) remember(user string, right success) {
	now := time.Now()
	if _, there := s.good[user]; !there && len(s.good) >= maxRemembered {
		for name, got := range s.good {
			if !now.Before(got.expires) {
				delete(s.good, name)
			}
		}
		for name := range s.good {
			if len(s.good) < maxRemembered {
				break
			}
			delete(s.good, name)
		}
	}
	s.good[user] = right
}
