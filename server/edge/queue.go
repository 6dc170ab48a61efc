package edge

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// wrongShare of the processors is what wrong passwords may take for long: those who
	// are signed in keep the rest. With two processors and bcrypt's default cost that is
	// three wrong passwords a second.
	wrongShare = 0.1
	// wrongAtOnce is what they may take before that, of each processor: four wrong
	// passwords at the default cost, so that mistakes do not wait for each other.
	wrongAtOnce = 250 * time.Millisecond
	// maxWaiting is with how many others a suspect may wait; the last of them waits for
	// some seconds. maxUnknown is that for addresses that nothing is known of; minutes.
	maxWaiting, maxUnknown = 32, 512
	// maxDebt bounds how long wrong passwords may hold up others, once they have stopped:
	// in what they may take at once.
	maxDebt = 4
	// fullQueue is when trying again makes sense for the next one.
	fullQueue = 10 * time.Second
)

// Ranks in the queue: the lower goes first. Suspects have how many wrong passwords
// their addresses gave.
const (
	rankTrusted = -1 // need not wait until the debt of wrong passwords is paid off
	rankUnknown = 0
)

// errQueue says that a suspect may not wait.
var errQueue = errors.New("too many sign-ins wait")

// queue lets few bcrypts run at once, and limits the processor time of those that
// find a password wrong. Ranks are looked at anew whenever there is a slot, since each
// bcrypt may make suspects of those that wait.
type queue struct {
	wrong *rate.Limiter // milliseconds

	mu      sync.Mutex
	slots   int // how many bcrypts may run at once
	running int
	waiting []*waiter // in the order in which they came
	alarm   *time.Timer
}

type waiter struct {
	rank func() int
	turn chan struct{} // closed when it has a slot
}

func newQueue() queue {
	n := runtime.GOMAXPROCS(0)
	return queue{
		// One processor is left for those who are signed in already: eight cold
		// sign-ins at once stalled a server (FACTS).
		slots: max(1, n-1),
		wrong: rate.NewLimiter(rate.Limit(wrongShare*1000*float64(n)), n*int(wrongAtOnce.Milliseconds())),
	}
}

// turn waits for a slot, which has to be given back by leave. Its error is ctx's, or
// errQueue.
func (q *queue) turn(ctx context.Context, rank func() int) error {
	w := &waiter{rank, make(chan struct{})}
	q.mu.Lock()
	if n := len(q.waiting); n >= maxWaiting && rank() > rankUnknown || n >= maxUnknown && rank() > rankTrusted {
		q.mu.Unlock()
		return errQueue
	}
	q.waiting = append(q.waiting, w)
	q.next()
	q.mu.Unlock()
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if at := slices.Index(q.waiting, w); at >= 0 {
		q.waiting = slices.Delete(q.waiting, at, at+1)
	} else { // its turn came at the same moment
		q.running--
		q.next()
	}
	return ctx.Err()
}

// leave gives a slot back.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.next()
}

// next gives free slots to those that are first, or has itself called again when they
// may have one; mu is held.
func (q *queue) next() {
	for q.running < q.slots && len(q.waiting) > 0 {
		first, rank := 0, q.waiting[0].rank()
		for i, w := range q.waiting[1:] {
			if r := w.rank(); r < rank {
				first, rank = i+1, r
			}
		}
		if debt := q.wrong.ReserveN(time.Now(), 0).Delay(); debt > 0 && rank > rankTrusted {
			q.wake(debt)
			return
		}
		close(q.waiting[first].turn)
		q.waiting = slices.Delete(q.waiting, first, first+1)
		q.running++
	}
}

func (q *queue) wake(after time.Duration) {
	if q.alarm != nil {
		q.alarm.Stop()
	}
	q.alarm = time.AfterFunc(after, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.next()
	})
}

// charge counts the time of a bcrypt that found a password wrong.
func (q *queue) charge(took time.Duration) {
	now := time.Now()
	if q.wrong.TokensAt(now) < float64(-maxDebt*q.wrong.Burst()) {
		return
	}
	for left := int(took.Milliseconds()); left > 0; left -= q.wrong.Burst() { // one takes no more
		q.wrong.ReserveN(now, min(left, q.wrong.Burst()))
	}
}
