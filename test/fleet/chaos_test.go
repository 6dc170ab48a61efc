//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	chaosHosts  = 5
	chaosRounds = 20
	// seedEnv repeats a run's schedule.
	seedEnv = "TRUSTCAST_SEED"
)

// TestChaos rotates while things go wrong, by a schedule that follows from a
// seed: no pull may fail that the trouble itself does not make impossible.
func TestChaos(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("chaos: " + why)
	}
	begin := time.Now()
	seed := chooseSeed(t)
	schedule := drawSchedule(seed, chaosHosts, chaosRounds)
	t.Logf("seed %d", seed)
	for i, r := range schedule {
		t.Logf("round %d: %v", i+1, r)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat it: TRUSTCAST_FLEET=1 %s=%d go test -count=1 -v -run '^TestChaos$' ./test/fleet", seedEnv, seed)
		}
	})

	f := newFleet(t, chaosHosts)
	must(t, f.hosts[chaosHosts-1].smallDisk())
	f.scenario(t, "without the agent every host refuses", f.testNegativeControl)
	f.scenario(t, "with the agent login, push and pull work", f.testJoin)
	if t.Failed() {
		t.Fatal("the fleet did not come up: nothing else can be tested")
	}
	f.scenario(t, "a large pull is held open across a switch", f.testLargePull)
	c := &chaos{fleet: f, excuses: &excuses{}, counts: tally{}}
	f.scenario(t, "chaos", func(t *testing.T) { c.run(t, schedule) })
	f.scenario(t, "without both safeguards the same loop fails", f.testChaosControl)
	t.Logf("seed %d: hosts %d, pulls attempted %d, pulls failed %d, rotations %d; %v; %v in all",
		seed, f.sum.hosts, f.sum.pulls, f.sum.failed, f.sum.rotations, c.counts, time.Since(begin).Round(time.Second))
}

// chooseSeed takes the one given, else draws one.
func chooseSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedEnv)
	if text == "" {
		return rand.Uint64N(1 << 32)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedEnv, err)
	}
	return seed
}

func (c *chaos) run(t *testing.T, schedule []round) {
	c.t = t
	loops := startExcused(appImage, c.hosts, c.excuses)
	loops.waitMore(t, 1)
	for i, r := range schedule {
		begin := time.Now()
		c.round(t, r, loops)
		took := time.Since(begin).Round(100 * time.Millisecond)
		loops.waitMore(t, 1)
		t.Logf("round %d took %v", i+1, took)
		if failed := loops.failed(); len(failed) > 0 {
			t.Fatalf("round %d, %v: failed pulls:\n%s", i+1, r, strings.Join(failed, "\n"))
		}
	}
	loops.end(t, &c.sum)
}

// round is one rotation with its troubles; at its end all is well again.
func (c *chaos) round(t *testing.T, r round, loops *pulls) {
	var mend func() error
	if r.broken != nil {
		var err error
		mend, err = c.begin(*r.broken)
		must(t, err)
	}
	number := 0
	c.play(t, r, func() error {
		number = c.beginRotation(t)
		return nil
	})
	if r.broken != nil {
		c.held(t, r, number, loops)
		if r.skip {
			c.passOver(t, c.hosts[r.broken.host], number, loops)
		}
		must(t, mend())
	}
	must(t, c.server.wait(2*time.Minute, fmt.Sprintf("end of rotation %d", number), func(st status) bool {
		return st.number() == number && c.trusted(st)
	}))
}

// play does what a round has at its times; what is late is done at once.
func (c *chaos) play(t *testing.T, r round, rotate func() error) {
	moments := []moment{{r.rotateAt, "rotate", rotate}}
	for _, p := range r.troubles {
		var end func() error
		moments = append(moments, moment{p.at, p.String(), func() (err error) {
			end, err = c.begin(p)
			return err
		}})
		if p.length > 0 {
			moments = append(moments, moment{p.at + p.length, "end of " + p.String(), func() error { return end() }})
		}
	}
	begin := time.Now()
	for _, m := range inOrder(moments) {
		if wait := m.at - time.Since(begin); wait > 0 {
			<-time.After(wait)
		}
		if err := m.do(); err != nil {
			t.Fatalf("%s: %v", m.what, err)
		}
	}
}

// held wants the broken host to hold the switch, to be named with a reason, and
// everybody, itself too, to pull meanwhile.
func (c *chaos) held(t *testing.T, r round, number int, loops *pulls) {
	h := c.hosts[r.broken.host]
	named := func(st status) bool {
		return st.number() == number && st.Rotation.Phase == "staged" && st.why(h.name) != "" &&
			st.host(h.name).State != "trusted" && st.host(h.name).Problem != ""
	}
	// Once: a report that is late on a busy machine has another host waited for, too.
	must(t, c.server.wait(2*time.Minute, "only "+h.name+" is waited for", func(st status) bool {
		return named(st) && len(st.Rotation.WaitingFor) == 1
	}))
	loops.waitMore(t, 1)
	st, err := c.server.status()
	must(t, err)
	if !named(st) {
		t.Errorf("%s does not hold rotation %d any more: %+v", h.name, number, st.Rotation)
	}
	t.Logf("%s, %s, holds rotation %d: %s", h.name, r.broken.kind, number, st.why(h.name))
}

// passOver goes on without the broken host, which pulls through the
// predecessors.
func (c *chaos) passOver(t *testing.T, h *host, number int, loops *pulls) {
	_, err := c.server.command("ca", "rotate", "--skip", h.name)
	must(t, err)
	must(t, c.server.wait(time.Minute, "the rotation ends without "+h.name, func(st status) bool {
		return st.number() == number && st.Rotation.Phase == "idle" && st.host(h.name).State != "trusted"
	}))
	loops.waitMore(t, 2)
	c.counts["hosts skipped"]++
}

// testChaosControl takes both safeguards away and breaks a host: its failures
// must be found, and excused by nothing, though a trouble lasts all the while.
func (f *fleet) testChaosControl(t *testing.T) {
	f.restart(t, "trustcast-faults", "no-gate,no-predecessors")
	f.waitTrusted(t, time.Minute)
	_, h := f.others()
	mend, err := h.freezeCerts()
	must(t, err)
	all := &excuses{}
	defer all.begin("", "everything")()
	n := f.beginRotation(t)
	must(t, f.server.wait(time.Minute, "switch without "+h.name, func(st status) bool {
		return st.number() == n && st.Rotation.Phase != "staged"
	}))
	loops := startExcused(appImage, []*host{h}, all)
	loops.waitMore(t, 2)
	failed := loops.failed()
	loops.halt()
	if len(failed) < 2 || !strings.Contains(failed[0], "x509") {
		t.Errorf("a host without the new CA had failures %q, want x509 errors", failed)
	}
	must(t, errors.Join(mend(), f.server.stop()))
}
