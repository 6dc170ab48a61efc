//go:build linux

package fleet_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// others are the hosts that pull while the last one is held.
func (f *fleet) others() ([]*host, *host) {
	last := len(f.hosts) - 1
	return f.hosts[:last], f.hosts[last]
}

// testGateAlone takes the predecessors away: nothing but the gate keeps pulls
// from failing. A pull that began before the new file came knows only the old
// bundle for all its requests; only predecessors can save it. So each rotation
// is held staged, by one agent, until such pulls are over.
func (f *fleet) testGateAlone(t *testing.T) {
	f.restart(t, "trustcast-faults", "no-predecessors")
	f.waitTrusted(t, time.Minute)
	pulling, held := f.others()
	loops := startPulls(appImage, pulling)
	loops.waitMore(t, 1)
	for range 2 {
		release := f.hold(t, held)
		watch := watchFiles(pulling)
		n := f.beginRotation(t)
		must(t, f.server.wait(time.Minute, "only the held host is waited for", func(st status) bool {
			return st.Rotation.Phase == "staged" && len(st.Rotation.WaitingFor) == 1 && st.waitsFor(held.name)
		}))
		watch.end()
		loops.waitMore(t, 1)
		release()
		f.waitRotation(t, n)
		loops.waitMore(t, 2)
	}
	if n := f.served(t); n != 1 {
		t.Errorf("the registry serves %d certificates, want the leaf alone", n)
	}
	loops.end(t, &f.sum)
}

// testPredecessorsAlone takes the gate away: the server switches before a held
// host has the new CA, and this host pulls with the old one.
func (f *fleet) testPredecessorsAlone(t *testing.T) {
	f.restart(t, "trustcast-faults", "no-gate")
	f.waitTrusted(t, time.Minute)
	_, held := f.others()
	old, err := os.ReadFile(held.certFile())
	must(t, err)
	loops := startPulls(appImage, f.hosts)
	loops.waitMore(t, 1)
	for range 2 {
		release := f.hold(t, held)
		n := f.beginRotation(t)
		must(t, f.server.wait(time.Minute, "switch without the held host", func(st status) bool {
			return st.number() == n && st.Rotation.Phase != "staged"
		}))
		loops.waitMore(t, 2)
		if now, err := os.ReadFile(held.certFile()); err != nil || !bytes.Equal(now, old) {
			t.Errorf("%s did not pull with the old CA: its file has changed (%v)", held.name, err)
		}
		release()
		f.waitRotation(t, n)
		loops.waitMore(t, 2)
		old, err = os.ReadFile(held.certFile())
		must(t, err)
	}
	if n := f.served(t); n < 2 {
		t.Errorf("the registry serves %d certificate, want predecessors beside the leaf", n)
	}
	loops.end(t, &f.sum)
}

// testNeither takes both safeguards away: now a host without the new CA must
// fail, or the scenarios before this one have shown nothing.
func (f *fleet) testNeither(t *testing.T) {
	f.restart(t, "trustcast-faults", "no-gate,no-predecessors")
	f.waitTrusted(t, time.Minute)
	_, held := f.others()
	release := f.hold(t, held)
	n := f.beginRotation(t)
	must(t, f.server.wait(time.Minute, "switch without the held host", func(st status) bool {
		return st.number() == n && st.Rotation.Phase != "staged"
	}))
	if err := held.pull(appImage); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("pull with the old CA, no predecessors: %v, want an x509 error", err)
	}
	release()
	f.waitRotation(t, n)
	f.restart(t, "trustcast", "")
	f.waitTrusted(t, time.Minute)
	f.pull(t, held)
}

// testWrongName stages a chain that no host can accept.
func (f *fleet) testWrongName(t *testing.T) {
	f.restart(t, "trustcast-faults", "wrong-name")
	f.waitTrusted(t, time.Minute)
	loops := startPulls(appImage, f.hosts)
	loops.waitMore(t, 1)
	n := f.beginRotation(t)
	must(t, f.server.wait(time.Minute, "every host refuses", func(st status) bool {
		for _, h := range f.hosts {
			if st.host(h.name).State != "refused" || !st.waitsFor(h.name) {
				return false
			}
		}
		return st.number() == n && st.Rotation.Phase == "staged"
	}))
	st, err := f.server.status()
	must(t, err)
	for _, w := range st.Rotation.WaitingFor {
		t.Logf("%s: %s", w.Host, w.Reason)
		if w.Reason == "" {
			t.Errorf("status does not say why it waits for %s", w.Host)
		}
	}
	loops.waitMore(t, 2) // and still nothing switches
	if at, err := f.server.phaseTime(n, "switched"); err == nil {
		t.Errorf("it switched at %v", at)
	}
	_, err = f.server.command("ca", "rollback")
	must(t, err)
	f.waitTrusted(t, time.Minute)
	loops.waitMore(t, 2)
	loops.end(t, &f.sum)

	f.restart(t, "trustcast", "")
	f.waitTrusted(t, time.Minute)
	f.rotate(t)
}

// waitRotation waits for the end of a rotation that was held up.
func (f *fleet) waitRotation(t *testing.T, n int) {
	t.Helper()
	must(t, f.server.wait(time.Minute, fmt.Sprintf("end of rotation %d", n), func(st status) bool {
		return st.number() == n && f.trusted(st)
	}))
}
