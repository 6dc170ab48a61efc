//go:build linux

package fleet_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// pulls is a pull loop on each of some hosts: remove the image, pull it whole,
// again and again.
type pulls struct {
	image string
	stop  chan struct{} // closed to end the loops
	wg    sync.WaitGroup

	mu       sync.Mutex // guards what follows
	done     map[string]int
	failures []string
}

func startPulls(image string, hosts []*host) *pulls {
	p := &pulls{image: image, stop: make(chan struct{}), done: map[string]int{}}
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
		begin := time.Now()
		err := h.pull(p.image)
		p.mu.Lock()
		p.done[h.name]++
		if err != nil {
			p.failures = append(p.failures, fmt.Sprintf("%s %s: %v", begin.UTC().Format(time.RFC3339Nano), h.name, err))
		}
		p.mu.Unlock()
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

// end stops the loops, adds them to the figures and fails the test for each
// failed pull.
func (p *pulls) end(t *testing.T, sum *figures) int {
	t.Helper()
	close(p.stop)
	p.wg.Wait()
	attempted := 0
	for _, n := range p.done {
		attempted += n
	}
	sum.pulls += attempted
	sum.failed += len(p.failures)
	t.Logf("pulls attempted %d, failed %d, by host %v", attempted, len(p.failures), p.done)
	if len(p.failures) > 0 {
		t.Errorf("failed pulls:\n%s", strings.Join(p.failures, "\n"))
	}
	return attempted
}
