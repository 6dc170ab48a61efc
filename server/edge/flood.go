package edge

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// guessed is the answer to a sign-in beyond the limits, the same for every user that
// there is or not.
func guessed(wait time.Duration) *refusal {
	return &refusal{http.StatusTooManyRequests, "TOOMANYREQUESTS", limited,
		"too many wrong passwords came from this address, or for this user: try again later", wait}
}

// sayEvery is how often the log tells of sign-ins beyond the limits.
const sayEvery = time.Minute

// floods is what was not said yet about sign-ins beyond the limits.
type floods struct {
	mu      sync.Mutex
	last    time.Time // when the log told of them
	refused int       // since then
}

// sayLimited logs that sign-ins are refused, once in a while.
func (e *Edge) sayLimited(from netip.Addr) {
	e.floods.mu.Lock()
	defer e.floods.mu.Unlock()
	e.floods.refused++
	now := time.Now()
	if !e.floods.last.IsZero() && now.Sub(e.floods.last) < sayEvery {
		return
	}
	addresses, users := e.signIn.limitedNow()
	e.cfg.Log.Warn("sign-ins are refused: too many wrong passwords", "refused", e.floods.refused, "addresses", addresses, "users", users, "latest", from)
	e.floods.last, e.floods.refused = now, 0
}

// limitedNow is how many addresses and users have no guess left.
func (s *signIn) limitedNow() (addresses, users int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.guesses.limited()
}
