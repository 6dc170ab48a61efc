//go:build linux

package fleet_test

import (
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// testHeld holds the layers of a large pull open while the registry restarts and, on
// Docker, goes to another image: whoever began to answer answers to the end.
func (c *client) testHeld(t *testing.T) {
	limit := rate.NewLimiter(largeRate, chunkSize)
	at := c.server.listen(c.server.ports.registry)
	r := newRelay(t, c.f, at, 0, limit)
	undo, err := c.f.net.redirect(c.host.name, at, r.address())
	must(t, err)
	t.Cleanup(func() { must(t, undo()) })
	broken := len(c.host.said(brokenOff))
	before, err := c.f.replicas(c.domain)
	must(t, err)

	begin, pulled := time.Now(), make(chan error, 1)
	go func() { pulled <- c.host.fetchLarge(c.large()) }()
	must(t, until(time.Minute, "the large pull is under way", func() (bool, string) { return r.bytes() > largeBegun, "" }))
	limit.SetLimit(heldRate)
	begun := r.bytes()
	c.replace(t)
	replaced := time.Since(begin)
	now, err := c.f.replicas(c.domain)
	must(t, err)
	old := 0
	for id := range now {
		if before[id] != "" {
			old++
		}
	}
	if c.engine == "docker" && old == 0 {
		t.Error("no replica from before answers any more: nothing is shown")
	}
	select {
	case err := <-pulled:
		t.Fatalf("the large pull ended before the replicas were replaced: %v", err)
	default:
	}
	held := r.bytes()
	limit.SetLimit(rate.Inf)
	must(t, <-pulled)
	if again := c.host.said(brokenOff)[broken:]; len(again) > 0 {
		t.Errorf("layers broke off: %q", again)
	}
	must(t, c.settled(before))
	must(t, c.host.forget(c.large()))
	t.Logf("%s: a pull held open at %d MiB, replicas replaced after %v at %d MiB with %d of the old still answering, the pull ended after %v at %d MiB",
		c.engine, begun>>20, replaced.Round(time.Millisecond), held>>20, old, time.Since(begin).Round(time.Millisecond), r.bytes()>>20)
}

// replace has new replicas take the place of all, twice where there are images.
func (c *client) replace(t *testing.T) {
	t.Helper()
	_, err := c.server.command("registry", "restart")
	must(t, err)
	if c.engine == "docker" {
		_, err = c.server.command("registry", "upgrade", "--image", c.images[1])
		must(t, err)
	}
}

// settled waits until the replicas from before are gone.
func (c *client) settled(before map[string]string) error {
	return until(settleBound, "the end of the old replicas", func() (bool, string) {
		now, err := c.f.replicas(c.domain)
		if err != nil {
			return false, err.Error()
		}
		for id := range now {
			if before[id] != "" {
				return false, id
			}
		}
		return true, ""
	})
}
