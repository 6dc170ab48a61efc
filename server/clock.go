package server

import (
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/server/fleet"
)

// clockLimit is how far this server's clock may be off the median of its hosts'
// before what it does by itself pauses (ROTATION, Time).
const clockLimit = time.Hour

// heard: the host reported within two ticks.
func (n *node) heard(s fleet.State, now time.Time) bool {
	return !s.Received.IsZero() && now.Sub(s.Received) < 2*n.cfg.Tick
}

// clockOff returns the median of the clocks of hosts that reported lately minus this
// server's, and whether it is so far off that automatic actions pause: rotations
// by age, renewals, forgetting hosts. A host alone decides; among several, one
// that lies or is wrong cannot.
func (n *node) clockOff() (off time.Duration, paused bool) {
	now := time.Now()
	var skews []time.Duration
	for _, h := range n.identity.Hosts() {
		if s := n.fleet.State(h.ID); n.heard(s, now) && s.Details.Timed {
			skews = append(skews, s.Details.Skew)
		}
	}
	off = median(skews)
	return off, off.Abs() > clockLimit
}

// paused: automatic actions wait for the clock to be set right.
func (n *node) paused() bool {
	_, paused := n.clockOff()
	return paused
}

// median of skews; 0 for none. Of the two in the middle of an even number it is
// the one nearer to zero, so that it takes more than half of the hosts to make
// it large.
func median(skews []time.Duration) time.Duration {
	if len(skews) == 0 {
		return 0
	}
	slices.Sort(skews)
	low, high := skews[(len(skews)-1)/2], skews[len(skews)/2]
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	case low == high:
		return low
	case low.Abs() < high.Abs():
		return low
	}
	return high
}

// pausedText says why automatic actions pause, and what to do; "" when they do
// not.
func pausedText(off time.Duration, paused bool) string {
	if !paused {
		return ""
	}
	side := "behind"
	if off < 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("this server's clock is %s %s its hosts': rotations by age, renewals and forgetting hosts wait until one of them is set right; check the time here first (`timedatectl`), then on the hosts (`trustcast host show NAME`)",
		off.Abs().Round(time.Minute), side)
}
