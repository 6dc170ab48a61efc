//go:build linux

package fleet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// hostileGone and hostileDeadline are long over while the deaths are forged.
	hostileGone, hostileDeadline = 4 * time.Second, 2 * time.Second
	hostileHold                  = 15 * time.Second
	// cpuBound is generous: a flood of packets that each cost what they cost
	// takes a core and more.
	cpuBound = 0.8
)

// TestHostileMembers lets somebody with the gossip key, and a thief of a host's
// identity, do their worst.
func TestHostileMembers(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("hostile members: " + why)
	}
	begin := time.Now()
	f := newFleet(t, 3)
	f.scenario(t, "without the agent every host refuses", f.testNegativeControl)
	f.restart(t, "trustcast", "", "--gone-after", hostileGone.String(), "--deadline", hostileDeadline.String())
	f.scenario(t, "with the agent login, push and pull work", f.testJoin)
	if t.Failed() {
		t.Fatal("the fleet did not come up: nothing else can be tested")
	}
	// Captured before anything is forged: later the members may have lost each
	// other, and be silent.
	must(t, f.server.wait(time.Minute, "gossip of all hosts ok", f.gossipOK))
	captured, err := f.net.captureGossip("server", 50, time.Minute)
	must(t, err)
	f.scenario(t, "forged deaths release nobody", func(t *testing.T) { f.testForgedDeaths(t, captured) })
	f.scenario(t, "a flood installs nothing and stops nothing", func(t *testing.T) { f.testFlood(t, captured) })
	f.scenario(t, "a stolen identity gets nowhere", f.testThief)
	f.scenario(t, "gossip mends itself", f.testGossipMends)
	t.Logf("hosts %d, pulls attempted %d, pulls failed %d, rotations %d; %v in all",
		f.sum.hosts, f.sum.pulls, f.sum.failed, f.sum.rotations, time.Since(begin).Round(time.Second))
}

// identity is what a thief finds in a host's identity.json.
type identity struct {
	HostID string `json:"host_id"`
	Cert   []byte `json:"cert"`
	Key    []byte `json:"key"`
	Gossip struct {
		Keys [][]byte `json:"keys"`
	} `json:"gossip"`
}

func (h *host) stolen(t *testing.T) (id identity) {
	t.Helper()
	data, err := os.ReadFile(h.path("agent", "identity.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &id))
	return id
}

// gossipers are the addresses and names of all members.
func (f *fleet) gossipers(t *testing.T) (addresses, names []string) {
	t.Helper()
	addresses = []string{f.server.listen(gossipPort)}
	for _, h := range f.hosts {
		addresses = append(addresses, h.addr+":"+gossipPort)
		names = append(names, h.stolen(t).HostID)
	}
	return addresses, names
}

// testForgedDeaths breaks a host, so that it holds a rotation, and says in its
// name and in others' that it died and left, for much longer than a host that is
// really gone would be waited for.
func (f *fleet) testForgedDeaths(t *testing.T, captured [][]byte) {
	_, h := f.others()
	addresses, names := f.gossipers(t)
	mend, err := h.freezeCerts()
	must(t, err)
	n := f.beginRotation(t)
	held := func(st status) bool {
		return st.number() == n && st.Rotation.Phase == "staged" && st.why(h.name) != ""
	}
	// Once: a report that is late on a busy machine has another host waited for, too.
	must(t, f.server.wait(time.Minute, "only "+h.name+" is waited for", func(st status) bool {
		return held(st) && len(st.Rotation.WaitingFor) == 1
	}))

	liar := newForger(t, f, h.stolen(t).Gossip.Keys[0])
	before := f.conflicts(t)
	for round, end := 0, time.Now().Add(hostileHold); time.Now().Before(end); round++ {
		for _, packet := range append(liar.lies(names, round), captured...) {
			for _, to := range addresses {
				liar.send(packet, to)
			}
		}
		for _, to := range addresses {
			liar.push(liar.table(names), to)
		}
		st, err := f.server.status()
		must(t, err)
		if !held(st) {
			t.Fatalf("rotation %d is %s, waiting for %v; want it staged and %s named", st.number(), st.Rotation.Phase, st.Rotation.WaitingFor, h.name)
		}
	}
	if f.conflicts(t) == before {
		t.Error("the server said nothing of names that two members use: the lies were not heard")
	}
	must(t, mend())
	f.waitRotation(t, n)
	t.Logf("held for %v", hostileHold)

	// The twin: a host that is really away is released.
	must(t, h.stopAgent(9))
	must(t, f.net.setLink(h.name, false))
	n = f.beginRotation(t)
	must(t, f.server.wait(time.Minute, "the rotation ends without the host that is gone", func(st status) bool {
		return st.number() == n && st.Rotation.Phase == "idle" && st.host(h.name).State == "gone"
	}))
	must(t, f.net.setLink(h.name, true))
	must(t, h.startAgent())
	f.waitTrusted(t, time.Minute)
}

// conflicts counts what the server logged of names that two members use.
func (f *fleet) conflicts(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(f.server.log())
	must(t, err)
	return strings.Count(string(data), "two members use one gossip name")
}

func (f *fleet) gossipOK(st status) bool {
	for _, h := range f.hosts {
		if st.host(h.name).Gossip != "ok" {
			return false
		}
	}
	return true
}

// testGossipMends wants all members to find each other again by themselves,
// once memberlist has forgotten the dead that were forged.
func (f *fleet) testGossipMends(t *testing.T) {
	begin := time.Now()
	must(t, f.server.wait(4*time.Minute, "gossip of all hosts ok again, all trusted", func(st status) bool {
		return f.gossipOK(st) && f.trusted(st)
	}))
	t.Logf("after %v", time.Since(begin).Round(time.Second))
}

// testFlood rotates and pulls while all of it comes as fast as it can.
func (f *fleet) testFlood(t *testing.T, captured [][]byte) {
	addresses, names := f.gossipers(t)
	before := f.trees(t)
	st, err := f.server.status()
	must(t, err)

	liar := newForger(t, f, f.hosts[0].stolen(t).Gossip.Keys[0])
	cpu, begin := f.server.cpu(t), time.Now()
	a := liar.attack(names, addresses, captured)
	defer a.end()
	loops := startPulls(appImage, f.hosts)
	loops.waitMore(t, 3)
	if now := f.trees(t); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("certs.d is %q under the flood, was %q", now, before)
	}
	if now, err := f.server.status(); err != nil || now.Generation != st.Generation || now.Fingerprint != st.Fingerprint || len(now.Hosts) != len(st.Hosts) {
		t.Errorf("the server has generation %v and %d hosts (%v), had %v and %d", now.Generation, len(now.Hosts), err, st.Generation, len(st.Hosts))
	}
	f.rotate(t)
	loops.waitMore(t, 1)
	used, took := f.server.cpu(t)-cpu, time.Since(begin)
	a.end()
	loops.end(t, &f.sum)
	share := used.Seconds() / took.Seconds()
	t.Logf("flood: %d packets to the server and %d to all in turn, %d captured ones among them, and %d streams in %v; the server used %v of CPU, pulls included: %.0f %% of a core",
		a.toServer, a.toAll, len(captured), a.streams, took.Round(time.Millisecond), used.Round(time.Millisecond), 100*share)
	// A member takes 500 packets a second: three times as many are a flood, however
	// busy the machine is.
	if float64(a.toServer) < 1500*took.Seconds() || a.streams < 10 {
		t.Errorf("that was no flood: %d packets, %d streams", a.toServer, a.streams)
	}
	if share > cpuBound {
		t.Errorf("the server used %.0f %% of a core under the flood, want at most %.0f", 100*share, 100*cpuBound)
	}
}

// trees are all files that the engines read for trust.
func (f *fleet) trees(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, h := range f.hosts {
		files, err := h.tree()
		must(t, err)
		for path, content := range files {
			all[h.name+path] = content
		}
	}
	return all
}

// cpu is what the server's process has used, in user and kernel mode.
func (s *server) cpu(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.proc.cmd.Process.Pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(data), ") ")
	var ticks int64
	for _, field := range strings.Fields(rest)[11:13] { // utime and stime, fields 14 and 15
		n, err := strconv.ParseInt(field, 10, 64)
		must(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 for every program
}
