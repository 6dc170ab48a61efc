//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// What happens to the registry of TestRegistryLife.
const (
	restarts    = "restarts"
	upgrades    = "upgrades"
	collections = "collections"
	kills       = "replicas killed"
)

// change is something that happened to the registry.
type change struct {
	interval
	what  string
	blobs int // that clients got meanwhile
}

// errMissed: nothing happened, and nothing is wrong.
var errMissed = errors.New("nothing was there to change")

// during does something that begins while a pull is in flight, and remembers it.
func (l *life) during(what string, do func() error) error {
	before, begin := 0, time.Time{}
	err := until(time.Minute, "a pull in flight", func() (bool, string) {
		if !l.loops.flying() {
			return false, "none is"
		}
		var err error
		before, err = l.f.server.blobGets()
		begin = time.Now()
		return err == nil && l.loops.flying(), fmt.Sprint(err)
	})
	if err == nil {
		err = do()
	}
	if errors.Is(err, errMissed) {
		return nil
	}
	if err != nil {
		return err
	}
	end := time.Now()
	after, err := l.f.server.blobGets()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
	l.changes = append(l.changes, change{interval{begin, end}, what, after - before})
	return nil
}

// checkOverlaps wants that pulls were in flight during each change, and were served:
// that none failed would say nothing otherwise.
func (l *life) checkOverlaps(t *testing.T) {
	t.Helper()
	for what, want := range map[string]int{restarts: wantRestarts, upgrades: wantUpgrades, collections: wantSweeps, kills: wantKills} {
		met, pulls, blobs := 0, 0, 0
		var took time.Duration
		for _, c := range l.changes {
			if c.what != what {
				continue
			}
			during := l.loops.wholeDuring(c.interval)
			if during > 0 {
				met++
			}
			pulls, blobs, took = pulls+during, blobs+c.blobs, took+c.to.Sub(c.from)
		}
		t.Logf("%s: %d in %v, of which %d met pulls in flight; %d pulls met one and ended well, and the edge served %d blobs meanwhile",
			what, l.counts[what], took.Round(time.Millisecond), met, pulls, blobs)
		if met < want || blobs < want/2 {
			t.Errorf("%s: %d met pulls, which were served %d blobs; want %d and %d", what, met, blobs, want, want/2)
		}
	}
}

// brokenWithin is how long after a kill Docker may say that it broke a layer off; once in
// a run, on a machine with much to do, it may say so later.
const brokenWithin, brokenLate = time.Second, 5 * time.Second

// checkTries looks in the engines' logs for layers that they fetched in two tries: such a
// pull succeeds and hides a failure. Only a replica that was killed in the middle of a
// layer may be the cause.
func (l *life) checkTries(t *testing.T) {
	t.Helper()
	again, late, uploads := 0, 0, 0
	for _, h := range l.f.hosts {
		uploads += len(h.said("Upload failed, retrying"))
		for _, line := range h.said(brokenOff) {
			again++
			switch {
			case l.struck(line, brokenWithin):
			case l.struck(line, brokenLate) && late == 0:
				late++
			default:
				t.Errorf("%s: a layer broke off and no kill was the cause: %s", h.name, line)
			}
		}
	}
	t.Logf("layers that a kill broke off, and that Docker fetched in a second try: %d; parts of pushes that Docker sent again: %d", again, uploads)
}

// brokenOff is how Docker says that it did not get a layer in one try.
const brokenOff = "Download failed"

// said returns the lines of the engine's log with these words.
func (h *host) said(words string) (lines []string) {
	for line := range strings.Lines(tail(h.engine.log, math.MaxInt)) {
		if strings.Contains(line, words) {
			lines = append(lines, line)
		}
	}
	return lines
}

// struck says whether a replica was killed so short a time before a line of an engine's
// log.
func (l *life) struck(line string, within time.Duration) bool {
	stamp, _, _ := strings.Cut(strings.TrimPrefix(line, `time="`), `"`)
	at, err := time.Parse(time.RFC3339Nano, stamp)
	return err == nil && slices.ContainsFunc(l.blows, func(b interval) bool {
		return at.After(b.from) && at.Before(b.to.Add(within))
	})
}

// struckDuring says whether a replica was killed meanwhile; a kill is noted once Docker has
// said that it is done.
func (l *life) struckDuring(d interval) bool {
	return until(brokenLate, "a kill", func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.blows, func(b interval) bool { return b.from.Before(d.to) && b.to.After(d.from) }), ""
	}) == nil
}
