package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const day = 24 * time.Hour

// plan is what happens to an organisation, and how often.
type plan struct {
	hosts  int
	length time.Duration
	// away is the share of hosts that is away at a time.
	away float64
	// Each happens about so often.
	partition, restart, remove, reinstall, clone, backup time.Duration
	// forgotten hosts stay away for longer than the server remembers them.
	forgotten int
	// outlived hosts are away past the end of their identity.
	outlived int
}

// stretched is the pace of months: everything keeps its proportions, but for
// the steps that take milliseconds anyway.
func stretched() pace {
	return pace{
		tick: 12 * time.Hour, gone: 24 * time.Hour, deadline: 12 * time.Hour,
		gossip: 8 * time.Hour, keepalive: 4 * day,
		poll: 10 * time.Minute, look: 12 * time.Hour,
	}
}

// organisation is a world to which things happen by a seeded plan. Its loop
// owns all of it.
type organisation struct {
	w      *world
	plan   plan
	dice   *rand.Rand
	ends   time.Time
	agenda []appointment
	// steady hosts are up and were heard of since they came back; only they get
	// into trouble, since nobody outside can tell which sign came last.
	steady []string
	// went is how many switches there were when a host went away.
	went      map[string]int
	returning []comeback
	// beyond are hosts that may have a CA which a restored server never knew.
	beyond  map[string]bool
	cloning bool
	// stopped hosts will join anew.
	stopped map[string]bool
	// settling: the plan is over, everybody comes back.
	settling bool
	// backedUp: there is a backup that will be put back.
	backedUp bool
	openBy   time.Time // when a restored server must be open, see checkClosed
	weeks    int       // rotations that the plan has
	diary    []string  // what happened, to print when something failed
	holding  bool      // host-0 holds a phase of a rotation, or will
	figures  figures
}

// appointment is something that will happen.
type appointment struct {
	at time.Time
	do func()
}

// comeback is a host that should be trusted again soon.
type comeback struct {
	name string
	at   time.Time
	// slept rotations; -1: it joined anew.
	slept int
	// ended: its identity had expired.
	ended bool
	oldID string // of a host that was replaced
}

// comebackTicks is how long a comeback may take at a server that stays: a pause
// between tries is one and a half ticks, and looks are a tick apart.
const comebackTicks = 4

// figures are what a run prints.
type figures struct {
	rotations, explained, partitions, restarts, midway, restores, removed, reinstalled, cloned, forgotten, renewed, added int
	slept                                                                                                                 map[int]int // comebacks by rotations slept through
}

// organise runs a plan in simulated time.
func organise(t *testing.T, p plan) {
	t.Helper()
	seed := seed()
	began := time.Now()
	var f figures
	defer func() {
		t.Logf("seed %d: %.0f simulated days in %.0f s; %s", seed, p.length.Hours()/24, time.Since(began).Seconds(), f)
		if t.Failed() {
			t.Logf("repeat with: TRUSTCAST_PROVE=1 go test -count=1 ./test/sim -run '^%s$' -seed=%d", t.Name(), seed)
			t.Log("the seed fixes the appointments, what is drawn at them and which packets are lost; keys, IDs, the agents' own pauses and who comes first at one moment differ each time, so it may take several runs")
		}
	}()
	simulateAt(t, stretched(), seed, p.hosts, agent.Layers{}, func(w *world) {
		w.gossip.SetLoss(0.05)
		o := &organisation{
			w: w, plan: p, dice: rand.New(rand.NewPCG(seed, 0)), ends: time.Now().Add(p.length), went: map[string]int{}, beyond: map[string]bool{}, stopped: map[string]bool{},
			figures: figures{slept: map[int]int{}},
		}
		defer func() {
			if f = o.figures; t.Failed() || w.broke() {
				t.Logf("what happened:\n%s", strings.Join(o.diary, "\n"))
			}
		}()
		o.begin()
		if o.run(); !w.broke() {
			o.settle()
		}
	})
}

// begin makes the first appointments; most make their own next one.
func (o *organisation) begin() {
	for i := 1; i < o.plan.hosts; i++ { // host-0 is for holding rotations
		o.steady = append(o.steady, fmt.Sprintf("host-%d", i))
	}
	for at := 3 * day; at < o.plan.length; at += 7 * day {
		o.weeks++
		o.in(at, o.rotate)
	}
	// The mean of an absence, drawn on a logarithmic scale.
	mean := time.Duration(float64(longest-shortest) / logRatio(longest, shortest))
	o.every(time.Duration(float64(mean)/(o.plan.away*float64(o.plan.hosts))), func() { o.absence(o.logDraw(shortest, longest)) })
	o.every(o.plan.partition, o.partition)
	o.every(o.plan.restart, func() { o.restart() })
	o.every(o.plan.remove, o.remove)
	o.every(o.plan.reinstall, o.reinstall)
	o.every(o.plan.clone, o.clone)
	o.every(o.plan.backup, o.backUp)
	o.in(o.plan.length/6, o.backUp) // one at least is put back
	for i := range o.plan.forgotten {
		o.in(o.plan.length*time.Duration(i)/8+day, o.forget)
	}
	for i := range o.plan.outlived {
		o.in(o.plan.length*time.Duration(i+1)/10, o.outlive)
	}
	o.repeat(o.w.pace.tick, o.inspect)
	o.repeat(30*day, func() { o.w.t.Logf("%.0f days to go: %s", time.Until(o.ends).Hours()/24, o.figures) })
}

// in makes an appointment.
func (o *organisation) in(after time.Duration, do func()) {
	a := appointment{at: time.Now().Add(after), do: do}
	i, _ := slices.BinarySearchFunc(o.agenda, a, func(x, y appointment) int {
		if x.at.After(y.at) {
			return 1
		}
		return -1 // of two at once the older is first
	})
	o.agenda = slices.Insert(o.agenda, i, a)
}

// every has something happen about so often, at random; 0: never.
func (o *organisation) every(mean time.Duration, do func()) {
	if mean == 0 {
		return
	}
	o.in(time.Duration(o.dice.ExpFloat64()*float64(mean)), func() { do(); o.every(mean, do) })
}

// repeat has something happen at a fixed interval.
func (o *organisation) repeat(interval time.Duration, do func()) {
	o.in(interval, func() { do(); o.repeat(interval, do) })
}

func (o *organisation) run() {
	for o.agenda[0].at.Before(o.ends) && !o.w.broke() {
		o.next()
	}
}

// next waits for the next appointment and keeps it.
func (o *organisation) next() {
	next := o.agenda[0]
	o.agenda = o.agenda[1:]
	time.Sleep(time.Until(next.at))
	next.do()
}

// settle: everybody who is not removed comes back, and the rotation
// under way ends.
func (o *organisation) settle() {
	o.agenda, o.settling = nil, true
	o.w.mu.Lock()
	if o.holding && o.w.holdAt == "" {
		o.went["host-0"] = o.w.switches
	}
	o.w.holdAt = ""
	o.w.mu.Unlock()
	for name := range maps.Clone(o.went) {
		o.comeBack(name)
	}
	for name := range maps.Clone(o.stopped) {
		o.joinAnew(name)
	}
	o.repeat(o.w.pace.tick, o.inspect)
	for o.ends = time.Now().Add(5 * day); len(o.returning) > 0 && time.Now().Before(o.ends); {
		o.next()
	}
	o.w.until("the last rotation ends", 5*day, func(s *pb.Status) bool {
		return s.GetRotation().GetPhase() == "idle" && s.GetRotation().GetFrozen() == ""
	})
	o.w.until("all hosts trust", 2*day, func(s *pb.Status) bool { return trusted(len(s.GetHosts()))(s) })
	for _, h := range o.w.status().GetHosts() {
		if made, err := o.w.pull(o.w.host(h.GetName())); !made || err != nil {
			o.w.fail("%s does not pull at the end: handshake %v, %v", h.GetName(), made, err)
		}
	}
	o.demand()
}

// demand: what the figures must be at least, or the run proves little. Rotations wait
// for the one before and for restores, pulls for the server and for hosts' disks.
func (o *organisation) demand() {
	least := func(what string, n, want int) {
		if n < want {
			o.w.fail("%d %s, want %d at least", n, what, want)
		}
	}
	o.w.mu.Lock()
	switches, pulls, switchers, retirers := o.w.switches, o.w.pulls, o.w.switchers, o.w.retirers
	o.w.mu.Unlock()
	back := 0
	for _, n := range o.figures.slept {
		back += n
	}
	looks := int(o.plan.length / o.w.pace.look)
	least("rotations", o.figures.rotations, o.weeks*3/4)
	least("switches", switches, o.weeks/2)
	least("hosts checked at switches", switchers, switches*o.plan.hosts/2)
	least("hosts checked at retires", retirers, switches*o.plan.hosts/3)
	least("comebacks", back, o.weeks)
	least("restores", o.figures.restores, 1)
	least("verified pulls", pulls, looks*o.plan.hosts/2)
}

// rotate starts the weekly rotation, once the one before has ended.
func (o *organisation) rotate() {
	if s := o.w.status(); s.GetRotation().GetPhase() != "idle" || s.GetRotation().GetFrozen() != "" {
		o.explain(s)
		o.figures.explained++
		o.in(o.w.pace.tick, o.rotate)
		return
	}
	o.figures.rotations++
	if o.dice.IntN(2) == 0 && !o.holding && !o.away("host-0") {
		o.restartMidway([]string{"staged", "switched", "retiring"}[o.dice.IntN(3)])
		return
	}
	o.w.rotate()
}

// inspect looks after comebacks and the rotation.
func (o *organisation) inspect() {
	s := o.w.status()
	o.explain(s)
	o.checkClosed()
	o.returning = slices.DeleteFunc(o.returning, func(c comeback) bool { return o.isBack(c, s) })
}

// explain: a rotation under way says whom it waits for, why, and what to do.
func (o *organisation) explain(s *pb.Status) {
	waits := func(s *pb.Status) []*pb.WaitingFor { return s.GetRotation().GetWaitingFor() }
	if s.GetRotation().GetPhase() != "idle" && len(waits(s)) == 0 {
		// The step that is due may be under way, or the server did not look yet.
		time.Sleep(o.w.pace.tick / 30)
		again := o.w.status()
		if again.GetRotation().GetPhase() == s.GetRotation().GetPhase() && len(waits(again)) == 0 {
			o.w.fail("rotation %d is %s and waits for nobody", again.GetRotation().GetNumber(), again.GetRotation().GetPhase())
		}
		s = again
	}
	for _, wait := range waits(s) {
		if wait.GetHost() == "" || wait.GetReason() == "" || wait.GetAdvice() == "" {
			o.w.fail("rotation %d waits without a reason or an advice: %v", s.GetRotation().GetNumber(), wait)
		}
	}
}

// isBack: the host is trusted again.
func (o *organisation) isBack(c comeback, s *pb.Status) bool {
	h := hostOf(s, c.name)
	// A host that is not connected may be trusted for what it said before.
	if !h.GetConnected() || h.GetState() != "trusted" || h.GetGeneration() != s.GetGeneration() || h.GetId() == c.oldID {
		if time.Since(o.able(c)) > comebackTicks*o.w.pace.tick {
			o.w.fail("%s did not come back within %d ticks (slept %d rotations): %s %s", c.name, comebackTicks, c.slept, h.GetState(), h.GetProblem())
			return true
		}
		return false
	}
	if c.slept >= 0 {
		o.figures.slept[c.slept]++
	}
	if c.ended {
		o.figures.renewed++
		if !identityEnds(o.w.t, o.w.host(c.name)).After(time.Now()) {
			o.w.fail("%s came back with an identity that has ended", c.name)
		}
	}
	o.w.drifted(c.name, false)
	if c.name != "host-0" {
		o.steady = append(o.steady, c.name)
	}
	return true
}

// able is since when a host could have come back: whoever tries while the server is
// off begins its pause again.
func (o *organisation) able(c comeback) time.Time {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if o.w.started.After(c.at) {
		return o.w.started
	}
	return c.at
}

// note writes into the diary.
func (o *organisation) note(format string, args ...any) {
	day := o.plan.length.Hours()/24 - time.Until(o.ends).Hours()/24
	o.diary = append(o.diary, fmt.Sprintf("day %.2f: %s", day, fmt.Sprintf(format, args...)))
}

func hostOf(s *pb.Status, name string) *pb.Host {
	for _, h := range s.GetHosts() {
		if h.GetName() == name {
			return h
		}
	}
	return nil
}

// String lists the figures in a few lines.
func (f figures) String() string {
	var slept []string
	for _, n := range slices.Sorted(maps.Keys(f.slept)) {
		slept = append(slept, fmt.Sprintf("%d×%d", f.slept[n], n))
	}
	lines := []string{
		fmt.Sprintf("%d rotations, %d times one was still under way and explained", f.rotations, f.explained),
		fmt.Sprintf("%d partitions, %d server restarts, %d of them in the middle of a rotation, %d restores of an older state", f.partitions, f.restarts, f.midway, f.restores),
		fmt.Sprintf("comebacks × rotations slept through: %s; %d renewed after their identity's end", strings.Join(slept, " "), f.renewed),
		fmt.Sprintf("%d hosts removed, %d added, %d reinstalled, %d forgotten, %d clones refused", f.removed, f.added, f.reinstalled, f.forgotten, f.cloned),
	}
	return strings.Join(lines, "\n  ")
}
