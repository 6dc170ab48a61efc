//go:build linux

package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pulls is a pull loop on each of some hosts: remove the image, pull it whole,
// again and again.
type pulls struct {
	image   string
	excuses *excuses      // nil: no failure is excused
	stop    chan struct{} // closed to end the loops
	stopped sync.Once
	wg      sync.WaitGroup

	mu       sync.Mutex     // guards what follows
	inFlight int            // now
	whole    []interval     // those that succeeded
	done     map[string]int // by host, without the excused
	excused  tally          // by reason
	failures []string
}

func startPulls(image string, hosts []*host) *pulls { return startExcused(image, hosts, nil) }

// startExcused is startPulls while troubles are made, which excuse failures.
func startExcused(image string, hosts []*host, e *excuses) *pulls {
	p := &pulls{image: image, excuses: e, stop: make(chan struct{}), done: map[string]int{}, excused: tally{}}
	for _, h := range hosts {
		p.done[h.name] = 0
		p.wg.Go(func() { p.loop(h) })
	}
	return p
}

func (p *pulls) loop(h *host) {
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		if err := h.forget(p.image); err != nil {
			p.count(h.name, time.Now(), err)
			continue
		}
		p.fly(1)
		begin := time.Now()
		err := h.fetch(p.image)
		p.fly(-1)
		p.count(h.name, begin, err)
	}
}

// interval is when something happened.
type interval struct{ from, to time.Time }

func (i interval) overlaps(other interval) bool {
	return i.from.Before(other.to) && other.from.Before(i.to)
}

// wholeDuring is how many pulls that succeeded were in flight at some time of it.
func (p *pulls) wholeDuring(i interval) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, pull := range p.whole {
		if pull.overlaps(i) {
			n++
		}
	}
	return n
}

func (p *pulls) fly(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight += n
}

// flying says whether a pull is in flight.
func (p *pulls) flying() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight > 0
}

func (p *pulls) count(host string, begin time.Time, err error) {
	why := ""
	if err != nil && p.excuses != nil {
		why = p.excuses.reason(host, begin, time.Now(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if why != "" {
		p.excused[why]++
		return
	}
	p.done[host]++
	if err == nil {
		p.whole = append(p.whole, interval{begin, time.Now()})
	} else {
		p.failures = append(p.failures, fmt.Sprintf("%s %s: %v", begin.UTC().Format(time.RFC3339Nano), host, err))
	}
}

func (p *pulls) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[string]int{}
	for name, n := range p.done {
		counts[name] = n
	}
	return counts
}

// waitMore waits until each host has ended that many more pulls. The first of
// them may have begun before the call; so two are one whole pull from now.
func (p *pulls) waitMore(t *testing.T, more int) {
	t.Helper()
	before := p.counts()
	err := until(2*time.Minute, fmt.Sprintf("%d more pulls on each host", more), func() (bool, string) {
		now := p.counts()
		for name := range before {
			if now[name] < before[name]+more {
				return false, fmt.Sprint(now)
			}
		}
		return true, ""
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *pulls) failed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.failures)
}

// halt stops the loops and waits for the pulls under way.
func (p *pulls) halt() {
	p.stopped.Do(func() { close(p.stop) })
	p.wg.Wait()
}

// end stops the loops, adds them to the figures and fails the test for each
// failed pull.
func (p *pulls) end(t *testing.T, sum *figures) int {
	t.Helper()
	p.halt()
	attempted := 0
	for _, n := range p.done {
		attempted += n
	}
	if p.excuses != nil {
		t.Logf("pulls excused: %v", p.excused)
	}
	sum.pulls += attempted
	sum.failed += len(p.failures)
	t.Logf("pulls attempted %d, failed %d, by host %v", attempted, len(p.failures), p.done)
	if len(p.failures) > 0 {
		t.Errorf("failed pulls:\n%s", strings.Join(p.failures, "\n"))
	}
	return attempted
}
