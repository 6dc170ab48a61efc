package agent

import "time"

// firstPause follows the first hint that brought nothing.
const firstPause = time.Second

// heed paces the visits that hints cause. Whoever holds the gossip key can forge
// hints, and the server announces only what it has: so each visit that brought
// nothing doubles the pause, up to the tick, and one that brought news ends it.
// While hints are forged a host thus visits the server twice a tick at most, and
// a true hint may wait for as long as it would without gossip.
type heed struct {
	pause time.Duration
	until time.Time
}

// wait is how long a hint that comes now has to wait.
func (h *heed) wait(now time.Time) time.Duration { return max(h.until.Sub(now), 0) }

// visited notes a visit: whether a hint caused it, whether it brought news.
func (h *heed) visited(now time.Time, hinted, news bool, tick time.Duration) {
	switch {
	case news:
		*h = heed{}
	case hinted:
		h.pause = min(max(2*h.pause, firstPause), tick)
		h.until = now.Add(h.pause)
	}
}
