package agent

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/internal/gossip"
)

// hinted is a link without a server, beside somebody who calls itself the server
// and hints at a new revision twice a second.
func hinted(t *testing.T, tick time.Duration) *link {
	network := gossip.NewNetwork(1)
	key := [][]byte{bytes.Repeat([]byte{1}, 32)}
	a := &membership{log: slog.New(slog.DiscardHandler)}
	a.link = newLink(a)
	a.link.current.tick = tick
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	join := func(cfg gossip.Config) *gossip.Member {
		m, err := gossip.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	a.gossip = join(gossip.Config{Name: "host", Keys: key, Transport: network.Transport("10.0.0.1:1"), Changed: a.link.hint})
	forger := join(gossip.Config{Name: gossip.ServerName, Keys: key, Transport: network.Transport("10.0.0.2:1"), Peers: []string{"10.0.0.1:1"}})
	running.Go(func() {
		for i := uint64(0); ctx.Err() == nil; i++ {
			if err := forger.SetMeta(gossip.Hint{Revision: math.MaxUint64 - i%2}.Encode()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second / 2) // simulated
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		network.Close()
	})
	return a.link
}

func TestForgedHintsGrowQuiet(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		const tick, timed = time.Minute, true
		l := hinted(t, tick)
		during := func(d time.Duration, news bool) (visits int) {
			for end := time.Now().Add(d); time.Now().Before(end); visits++ {
				caused := l.rest(t.Context(), tick, timed, false)
				l.heed.visited(time.Now(), caused, news, tick)
			}
			return visits
		}
		if n := during(5*time.Minute, true); n < 150 {
			t.Errorf("%d visits in 5 minutes of good hints: the forger is not heard", n)
		}
		if n := during(20*time.Minute, false); n < 20 || n > 50 {
			t.Errorf("%d visits in 20 minutes of forged hints: want the 20 of the poll, and no more again", n)
		}
		// A poll that brings news ends the pause: the next hint is heeded at once.
		l.heed.visited(time.Now(), false, true, tick)
		start := time.Now()
		if !l.rest(t.Context(), tick, timed, false) || time.Since(start) > 2*time.Second {
			t.Errorf("after news, a hint takes %v", time.Since(start))
		}
		if l.rest(t.Context(), tick, timed, true) {
			t.Error("a hint wakes a host that was removed")
		}
	})
}

// Hints that keep coming must not put off the visit that the first one caused.
func TestHintsDoNotPutOffVisits(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		l := hinted(t, time.Hour)
		l.current.window = time.Minute
		for range 20 {
			start := time.Now()
			if !l.rest(t.Context(), time.Hour, false, false) {
				t.Fatal("no hint")
			}
			if took := time.Since(start); took > time.Minute+2*time.Second {
				t.Errorf("a visit was put off for %v by a window of a minute", took)
			}
		}
	})
}

func TestHeed(t *testing.T) {
	t.Parallel()
	now, tick := time.Now(), 5*time.Second
	var h heed
	for i, want := range []time.Duration{1, 2, 4, 5, 5} {
		h.visited(now, true, false, tick)
		if got := h.wait(now); got != want*time.Second {
			t.Errorf("after fruitless visit %d: wait %v, want %vs", i+1, got, want)
		}
	}
	h.visited(now, false, false, tick) // a poll shows nothing about hints
	if got := h.wait(now.Add(time.Second)); got != 4*time.Second {
		t.Errorf("after a poll: %v", got)
	}
	if got := h.wait(now.Add(time.Hour)); got != 0 {
		t.Errorf("an hour later: %v", got)
	}
	h.visited(now, false, true, tick)
	if h != (heed{}) {
		t.Errorf("after news: %+v", h)
	}
}
