package edge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"runtime"
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

	macs  sync.Pool     // of *mac under the process's key
	slots chan struct{} // one for each bcrypt that may run at once

	mu      sync.RWMutex
	good    map[string]success // by user: only one password is right at a time
	flights map[digest]*flight // bcrypts that run or wait for a slot
}

type digest [sha256.Size]byte

// success is a password that bcrypt found right.
type success struct {
	digest  digest
	expires time.Time
}

// flight is one bcrypt that equal sign-ins share.
type flight struct {
	done chan struct{} // closed when it ended
	// Set before done is closed. A flight that is not decided was given up by
	// its client; another one takes its place.
	decided, ok bool
}

// mac is reused, since every request makes a digest.
type mac struct {
	hash.Hash
	input []byte
}

func newSignIn(current func(string) ([]byte, bool), dummy func() []byte) *signIn {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return &signIn{
		hash: current, dummy: dummy, compare: bcrypt.CompareHashAndPassword,
		macs: sync.Pool{New: func() any { return &mac{Hash: hmac.New(sha256.New, key)} }},
		// One processor is left for those who are signed in already: eight cold
		// sign-ins at once stalled a server (FACTS).
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		good:    map[string]success{},
		flights: map[digest]*flight{},
	}
}

// check says what the sign-in came to. Equal ones at the same time share one
// bcrypt, different ones wait for a slot; the only error is that of ctx ending
// meanwhile. An unknown user takes the same way as a wrong password.
func (s *signIn) check(ctx context.Context, user, password string) (result string, err error) {
	switch {
	case user == "" && password == "":
		return anonymous, nil
	case user == "" || password == "" || len(password) > maxPassword:
		return refused, nil
	}
	hash, known := s.hash(user)
	if !known {
		hash = s.dummy()
	}
	d := s.digest(user, password, hash)
	s.mu.RLock()
	again := s.remembers(user, d)
	s.mu.RUnlock()
	if again {
		return remembered, nil
	}
	for {
		f, first, again := s.join(user, d)
		if again {
			return remembered, nil
		}
		if first {
			s.fly(ctx, f, d, func() bool { return s.matches(hash, password, known) }, user)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return refused, ctx.Err()
		}
		switch {
		case f.ok:
			return accepted, nil
		case f.decided:
			return refused, nil
		case ctx.Err() != nil:
			return refused, ctx.Err()
		}
	}
}

// digest covers each part with its length, so that no two triples look alike.
func (s *signIn) digest(user, password string, hash []byte) (d digest) {
	m := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	in := m.input[:0]
	in = append(binary.BigEndian.AppendUint64(in, uint64(len(user))), user...)
	in = append(binary.BigEndian.AppendUint64(in, uint64(len(password))), password...)
	in = append(binary.BigEndian.AppendUint64(in, uint64(len(hash))), hash...)
	m.Reset()
	_, _ = m.Write(in) // a hash does not fail
	m.Sum(d[:0])
	clear(in) // no password stays behind
	m.input = in
	return d
}

// remembers says whether d was right for user not long ago; mu is held.
func (s *signIn) remembers(user string, d digest) bool {
	got, ok := s.good[user]
	return ok && hmac.Equal(got.digest[:], d[:]) && time.Now().Before(got.expires)
}

// join returns the flight for d, which the caller has to fly if it is the first,
// or says that d has been found right since it was asked last.
func (s *signIn) join(user string, d digest) (f *flight, first, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remembers(user, d) {
		return nil, false, true
	}
	if f, ok := s.flights[d]; ok {
		return f, false, false
	}
	f = &flight{done: make(chan struct{})}
	s.flights[d] = f
	return f, true, false
}

// fly waits for a slot and decides f, or gives it up when ctx ends before.
func (s *signIn) fly(ctx context.Context, f *flight, d digest, matches func() bool, user string) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.flights, d)
		if f.ok {
			s.remember(user, d)
		}
		close(f.done)
	}()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-s.slots }()
	f.ok = matches()
	f.decided = true
}

// matches runs bcrypt. A wrong password for a hash cheaper than the dearest is
// checked against the dummy too, or the time would tell that the user exists.
func (s *signIn) matches(hash []byte, password string, known bool) bool {
	err := s.compare(hash, []byte(password))
	if err == nil {
		return known
	}
	dummy := s.dummy()
	own, ownErr := bcrypt.Cost(hash)
	dearest, err := bcrypt.Cost(dummy)
	if known && err == nil && (ownErr != nil || own < dearest) {
		_ = s.compare(dummy, []byte(password)) // for its time only
	}
	return false
}

// remember keeps d as right for user; mu is held. When it is full, whatever has
// expired goes, else anything.
func (s *signIn) remember(user string, d digest) {
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
	s.good[user] = success{digest: d, expires: now.Add(rememberFor)}
}
