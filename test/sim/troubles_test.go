package sim

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// An absence takes from shortest to longest; the longest is less than the server
// takes to forget a host.
const (
	shortest = 2 * time.Hour
	longest  = 80 * day
)

func logRatio(a, b time.Duration) float64 { return math.Log(float64(a) / float64(b)) }

// logDraw draws on a logarithmic scale.
func (o *organisation) logDraw(from, to time.Duration) time.Duration {
	return time.Duration(float64(from) * math.Exp(o.dice.Float64()*logRatio(to, from)))
}

// pick takes a steady host out of the pool; "" when there is none, or when it has
// not met the server again since that restarted: then its last sign is older than
// it looks from outside.
func (o *organisation) pick() string {
	if len(o.steady) == 0 {
		return ""
	}
	i := o.dice.IntN(len(o.steady))
	name := o.steady[i]
	if !hostOf(o.w.status(), name).GetConnected() {
		return ""
	}
	o.steady = slices.Delete(o.steady, i, i+1)
	return name
}

// leaves notes that a host goes away. A server that was restored a moment ago may
// not have met it yet.
func (o *organisation) leaves(name string) {
	if o.w.isClosed() {
		o.beyond[name] = true
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.note("%s goes away", name)
	o.went[name] = o.w.switches
}

func (o *organisation) away(name string) bool {
	_, away := o.went[name]
	return away || slices.ContainsFunc(o.returning, func(c comeback) bool { return c.name == name })
}

// comeBack lets a host come back by itself; what it has on disk verifies what
// is served although it slept.
func (o *organisation) comeBack(name string) {
	went, away := o.went[name]
	if !away {
		return // at the end all came back at once
	}
	h := o.w.host(name)
	if !h.hasEnded() && !o.settling {
		o.in(time.Hour, func() { o.comeBack(name) })
		return
	}
	delete(o.went, name)
	o.w.mu.Lock()
	slept := o.w.switches - went
	o.w.mu.Unlock()
	beyond := o.beyond[name] || o.w.isClosed()
	delete(o.beyond, name)
	if made, err := o.w.pull(h); !beyond && (!made || err != nil) {
		o.w.fail("%s slept through %d rotations and cannot pull: handshake %v, %v", name, slept, made, err)
	}
	ended := !identityEnds(o.w.t, h).After(time.Now())
	if h.agent == nil {
		o.w.startAgent(name)
	} else {
		o.w.cutLink(name, false)
	}
	o.note("%s comes back, slept through %d", name, slept)
	o.returning = append(o.returning, comeback{name: name, at: time.Now(), slept: slept, ended: ended})
}

// absence takes a host away for so long: switched off, or off the network.
func (o *organisation) absence(length time.Duration) {
	name := o.pick()
	if name == "" {
		return
	}
	o.leaves(name)
	if o.dice.IntN(3) == 0 {
		o.w.cutLink(name, true)
	} else {
		o.w.leaveAgent(name)
	}
	o.in(length, func() { o.comeBack(name) })
}

// partition takes a part of the fleet off the rest for minutes to a day; half
// of the time for gossip alone.
func (o *organisation) partition() {
	o.figures.partitions++
	length := o.logDraw(10*time.Minute, 26*time.Hour)
	gossipAlone := o.dice.IntN(2) == 0
	var names, side []string
	for range 1 + o.dice.IntN(1+len(o.steady)*2/5) {
		if name := o.pick(); name != "" {
			names, side = append(names, name), append(side, o.w.host(name).gossip)
		}
	}
	o.w.gossip.Partition(side)
	o.in(length, func() { o.w.gossip.Partition() })
	if gossipAlone { // nobody may notice
		o.in(length, func() { o.steady = append(o.steady, names...) })
		return
	}
	for _, name := range names {
		o.leaves(name)
		o.w.offline(name, true)
		o.in(length, func() { o.comeBack(name) })
	}
}

// restart stops the server, in half of the cases for a while.
func (o *organisation) restart() {
	if o.cloning { // whoever came first afterwards would be taken for the host
		o.in(time.Hour, func() { o.restart() })
		return
	}
	o.figures.restarts++
	o.note("the server restarts")
	o.w.server.end(o.w.t)
	if o.dice.IntN(2) == 0 {
		time.Sleep(o.logDraw(time.Minute, o.w.pace.tick))
	}
	o.w.startServer()
}

// restartMidway rotates, has host-0 hold a phase, and restarts the server
// there.
func (o *organisation) restartMidway(phase string) {
	o.w.mu.Lock()
	o.w.holdAt = phase
	o.w.mu.Unlock()
	o.holding = true
	o.w.rotate()
	o.in(time.Hour, func() { o.whenHeld(phase) })
}

// whenHeld restarts the server once the phase is held, and later lets go.
func (o *organisation) whenHeld(phase string) {
	o.w.mu.Lock()
	held := o.w.holdAt == ""
	o.w.mu.Unlock()
	if !held || o.cloning {
		o.in(time.Hour, func() { o.whenHeld(phase) })
		return
	}
	o.leaves("host-0")
	if o.w.status().GetRotation().GetPhase() == phase {
		o.figures.midway++
	}
	o.restart()
	o.in(o.logDraw(time.Hour, 2*day), func() {
		o.comeBack("host-0")
		o.holding = false
	})
}

// remove revokes a host for good, and lets a new one join in its place. The
// removed agent runs on, keeps its files, and stays outside.
//
// A backup that is still to be put back would bring the host back too, until somebody
// removes it again: that comes first.
func (o *organisation) remove() {
	if o.backedUp {
		o.in(time.Hour, o.remove)
		return
	}
	name := o.pick()
	if name == "" {
		return
	}
	err := o.w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RemoveHost(ctx, &pb.RemoveHostRequest{Host: name})
		return err
	})
	if err != nil {
		o.w.t.Fatalf("remove %s: %v", name, err)
	}
	o.figures.removed++
	o.note("%s is removed", name)
	kept, err := os.ReadFile(o.w.host(name).caFile())
	if err != nil {
		o.w.fail("the removed %s: %v", name, err)
	}
	o.in(10*day, func() {
		now, err := os.ReadFile(o.w.host(name).caFile())
		if err != nil || !bytes.Equal(kept, now) {
			o.w.fail("the removed %s did not keep its files: %v", name, err)
		}
		if hostOf(o.w.status(), name) != nil {
			o.w.fail("the removed %s came back", name)
		}
		o.w.leaveAgent(name)
	})
	o.figures.added++
	added := fmt.Sprintf("host-%d", o.plan.hosts+o.figures.added)
	o.w.token = o.w.createToken("")
	o.w.addHost(added, agent.Layers{})
	o.returning = append(o.returning, comeback{name: added, at: time.Now(), slept: -1})
}

// reinstall sets a machine up anew: it lost all files and gets a token for its
// name.
func (o *organisation) reinstall() {
	name := o.pick()
	if name == "" {
		return
	}
	o.figures.reinstalled++
	o.w.drifted(name, true) // its disk is wiped
	o.w.leaveAgent(name)
	o.joinAnew(name)
}

// joinAnew has a stopped host join with a token for its name once its agent has
// ended. Gossip at this pace takes days for that, and a token lives for one.
func (o *organisation) joinAnew(name string) {
	if o.stopped[name] = true; !o.w.host(name).hasEnded() && !o.settling {
		o.in(time.Hour, func() { o.joinAnew(name) })
		return
	}
	o.w.host(name).awaitEnd(o.w.t)
	delete(o.stopped, name)
	o.note("%s joins anew", name)
	oldID := hostOf(o.w.status(), name).GetId()
	o.w.joinAnew(name, o.w.createToken(name))
	o.returning = append(o.returning, comeback{name: name, at: time.Now(), slept: -1, oldID: oldID})
}

// forget keeps a host away until the server has forgotten it. It does not come
// back by itself, and joins with a new token.
func (o *organisation) forget() {
	name := o.pick()
	if name == "" {
		return
	}
	o.w.leaveAgent(name)
	restores := o.figures.restores
	o.in(97*day+time.Duration(o.dice.Int64N(int64(10*day))), func() {
		o.w.startAgent(name)
		o.in(comebackTicks*o.w.pace.tick, func() {
			known := hostOf(o.w.status(), name)
			if known != nil && restores == o.figures.restores { // a backup remembers
				o.w.fail("%s is known although it was silent for more than 90 days", name)
			}
			o.figures.forgotten++
			o.w.leaveAgent(name)
			o.joinAnew(name)
		})
	})
}

// outlive keeps a host away past the end of its identity; it renews with its known
// key when it comes back.
func (o *organisation) outlive() {
	const away = 75 * day
	i := slices.IndexFunc(o.steady, func(name string) bool {
		return time.Until(identityEnds(o.w.t, o.w.host(name))) < away-5*day
	})
	if i < 0 {
		o.in(day, o.outlive)
		return
	}
	name := o.steady[i]
	o.steady = slices.Delete(o.steady, i, i+1)
	o.leaves(name)
	o.w.leaveAgent(name)
	o.in(away, func() { o.comeBack(name) })
}

// clone starts a second machine with a host's state: it is refused and named,
// and the first goes on.
func (o *organisation) clone() {
	met := o.w.status()
	i := slices.IndexFunc(o.steady, func(name string) bool {
		return hostOf(met, name).GetConnected() && time.Until(identityEnds(o.w.t, o.w.host(name))) > 45*day // else it would renew the identity first
	})
	if i < 0 || o.cloning {
		return
	}
	name := o.steady[i]
	o.steady = slices.Delete(o.steady, i, i+1)
	o.cloning = true
	o.note("%s is cloned", name)
	twin := o.w.cloneOf(name, o.figures.cloned)
	o.in(time.Hour, func() {
		o.figures.cloned++
		s := o.w.status()
		if !named(s, name) {
			o.w.fail("the status does not name the clone of %s: %q", name, s.GetWarnings())
		}
		if h := hostOf(s, name); h.GetState() != "trusted" || !h.GetConnected() {
			o.w.fail("%s is hurt by its clone: %s %s", name, h.GetState(), h.GetProblem())
		}
		twin.stop()
		o.cloning = false
		o.steady = append(o.steady, name)
	})
}
