package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// pulling is a pull loop on every host.
type pulling struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex
	pulls  [hosts]int // guarded by mu
	failed []error    // guarded by mu
}

func (s *stage) startPulling(ctx context.Context, c client) *pulling {
	ctx, cancel := context.WithCancel(ctx)
	p := &pulling{cancel: cancel}
	for i := range hosts {
		p.wait.Go(func() {
			for ctx.Err() == nil {
				roots, err := caFile(s.installed(i))
				if err == nil {
					err = c.pull(ctx, roots)
				}
				if ctx.Err() == nil { // else it was cut off by the end of the loop
					p.count(i, err)
				}
			}
		})
	}
	return p
}

func (p *pulling) count(host int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulls[host]++
	if err != nil {
		p.failed = append(p.failed, fmt.Errorf("pull on %s: %w", hostName(host), err))
	}
}

// pullsOnEach waits until every host has pulled n times more.
func (p *pulling) pullsOnEach(ctx context.Context, n int) error {
	goal := p.counted()
	for i := range goal {
		goal[i] += n
	}
	for {
		now := p.counted()
		reached := true
		for i := range goal {
			reached = reached && now[i] >= goal[i]
		}
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *pulling) counted() [hosts]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pulls
}

// stop ends the loop and returns what it counted.
func (p *pulling) stop() (pulls int, failed []error) {
	p.cancel()
	p.wait.Wait()
	for _, n := range p.counted() {
		pulls += n
	}
	return pulls, slices.Clone(p.failed)
}
