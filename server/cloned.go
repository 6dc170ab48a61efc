package server

import (
	"fmt"
	"time"
)

// clonedFor is how long a refused clone stays in the warnings, in ticks: it
// tries again within one and a half.
const clonedFor = 2

// cloneWarnings name the hosts whose identity another machine tried to use a
// moment ago.
func (n *node) cloneWarnings() []string {
	var out []string
	for _, h := range n.identity.Hosts() {
		c := n.fleet.State(h.ID).Cloned
		if c.At.IsZero() || time.Since(c.At) > clonedFor*n.cfg.Tick {
			continue
		}
		out = append(out, fmt.Sprintf("host %s is cloned: another machine (%s) uses its identity and is refused while the first answers; remove the agent's data directory there and join it with a token of its own from `trustcast token create`", h.Name, c.Address))
	}
	return out
}
