//go:build linux

package fleet_test

import (
	"strings"
	"testing"
	"time"
)

// TestFleet is one story of one fleet, in order: each scenario finds the fleet
// idle and trusted and leaves it so.
func TestFleet(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("real fleet: " + why)
	}
	begin := time.Now()
	f := newFleet(t, 4)

	before := f.preparePast(t)
	f.scenario(t, "without the agent every host refuses", f.testNegativeControl)
	f.scenario(t, "with the agent login, push and pull work", f.testJoin)
	if t.Failed() {
		t.Fatal("the fleet did not come up: nothing else can be tested")
	}
	f.scenario(t, "five rotations, a leaf renewal and user changes under load", f.testLoad)
	f.scenario(t, "gate alone", f.testGateAlone)
	f.scenario(t, "predecessors alone", f.testPredecessorsAlone)
	f.scenario(t, "without both pulls fail", f.testNeither)
	f.scenario(t, "a wrong name holds the switch", f.testWrongName)
	f.scenario(t, "a host without gossip takes part", f.testGossipBlocked)
	f.scenario(t, "a host sleeps through rotations", f.testSleeper)
	f.scenario(t, "killed while staged, links down, links up", f.testKilledStaged)
	f.scenario(t, "killed while staged, links down until all are gone", f.testKilledGone)
	f.scenario(t, "leave restores", func(t *testing.T) { f.testLeave(t, before) })

	t.Logf("%v; %v in all", &f.sum, time.Since(begin).Round(time.Second))
}

// testNegativeControl shows that the hosts verify: nothing below would prove
// anything otherwise.
func (f *fleet) testNegativeControl(t *testing.T) {
	_, err := f.server.commandInput(password+"\n", "init", "--domain", domain, "--user", user, "--password-stdin")
	must(t, err)
	must(t, f.server.start("trustcast", nil))
	f.refusedEverywhere(t)
}

// refusedEverywhere wants login and pull to fail on each host because the
// certificate is not trusted.
func (f *fleet) refusedEverywhere(t *testing.T) {
	t.Helper()
	must(t, f.each(func(h *host) error {
		for what, err := range map[string]error{"login": h.login(domain, user, password), "pull": h.pull(appImage)} {
			if err == nil || !strings.Contains(err.Error(), "x509") {
				t.Errorf("%s: %s without the CA: %v, want an x509 error", h.name, what, err)
			}
		}
		return nil
	}))
}

// testJoin starts the agents and does what people do with a registry.
func (f *fleet) testJoin(t *testing.T) {
	for _, h := range f.hosts {
		token, err := f.server.command("token", "create", "-q")
		must(t, err)
		must(t, h.startAgent("--join", "registry.test:"+grpcPort, "--token", strings.TrimSpace(token), "--name", h.name))
	}
	f.waitTrusted(t, time.Minute)
	must(t, f.each(func(h *host) error { return h.login(domain, user, password) }))
	must(t, f.hosts[0].push(f.run.path("image.tar"), loadedImage, appImage))
	must(t, f.each(func(h *host) error {
		own := domain + "/fleet/" + h.name + ":v1"
		if err := h.push(f.run.path("image.tar"), loadedImage, own); err != nil {
			return err
		}
		_, err := h.docker("image", "rm", "--force", loadedImage, own, appImage)
		return err
	}))
	for _, h := range f.hosts {
		f.pull(t, h)
	}
}

// testLoad is promise 4: no pull fails because of a rotation, a leaf renewal or
// a user change.
func (f *fleet) testLoad(t *testing.T) {
	// The rotations below leave leaves of this life.
	f.restart(t, "trustcast", "", "--leaf-life", "40s")
	f.waitTrusted(t, time.Minute)
	blobs, err := f.server.blobGets()
	must(t, err)
	loops := startPulls(appImage, f.hosts)
	loops.waitMore(t, 2)
	for range 5 {
		f.rotate(t)
		loops.waitMore(t, 2)
	}
	f.waitLeafRenewal(t)
	loops.waitMore(t, 2)
	f.changeUsers(t)
	loops.waitMore(t, 2)
	attempted := loops.end(t, &f.sum)

	after, err := f.server.blobGets()
	must(t, err)
	if want := attempted * blobsPerPull; after-blobs < want {
		t.Errorf("the edge served %d blobs for %d pulls, want %d: some pulls fetched nothing", after-blobs, attempted, want)
	}
	t.Logf("blob GETs %d", after-blobs)
	f.restart(t, "trustcast", "")
	f.waitTrusted(t, time.Minute)
}

// waitLeafRenewal waits until the registry serves a newer leaf, without a
// rotation.
func (f *fleet) waitLeafRenewal(t *testing.T) {
	t.Helper()
	before, err := f.server.status()
	must(t, err)
	must(t, f.server.wait(time.Minute, "leaf renewal", func(st status) bool {
		return st.Serving.LeafNotAfter.After(before.Serving.LeafNotAfter) && st.number() == before.number()
	}))
}

// changeUsers adds a user, changes the password and removes the user; each
// change counts at once.
func (f *fleet) changeUsers(t *testing.T) {
	t.Helper()
	const other = "bob"
	h := f.hosts[1]
	// A client configuration of its own: the loop's login stays as it is.
	login := func(password string) error {
		_, err := h.dockerInput(password, "--config", h.path("bob"), "login", "--username", other, "--password-stdin", domain)
		return err
	}
	set := func(password string) {
		_, err := f.server.commandInput(password+"\n", "user", "add", other, "--password-stdin")
		must(t, err)
	}
	set("first password")
	must(t, login("first password"))
	set("second password")
	if login("first password") == nil {
		t.Error("the old password still works")
	}
	must(t, login("second password"))
	_, err := f.server.command("user", "rm", other)
	must(t, err)
	if login("second password") == nil {
		t.Error("a removed user can still sign in")
	}
}
