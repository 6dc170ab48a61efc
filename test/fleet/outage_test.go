//go:build linux

package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// testGossipBlocked leaves a host TCP to the server's two ports and nothing
// else.
func (f *fleet) testGossipBlocked(t *testing.T) {
	h := f.hosts[1]
	must(t, f.server.wait(time.Minute, "gossip of "+h.name+" ok", func(st status) bool { return st.host(h.name).Gossip == "ok" }))
	must(t, f.net.blockPort(h.name, gossipPort, true))
	blocked := true
	t.Cleanup(func() {
		if blocked {
			must(t, f.net.blockPort(h.name, gossipPort, false))
		}
	})
	must(t, f.server.wait(2*time.Minute, "gossip of "+h.name+" unreachable", func(st status) bool {
		return st.host(h.name).Gossip == "unreachable" && st.host(h.name).State == "trusted"
	}))
	f.rotate(t)
	f.pull(t, h)

	must(t, f.net.blockPort(h.name, gossipPort, false))
	blocked = false
	begin := time.Now()
	must(t, f.server.wait(2*time.Minute, "gossip of "+h.name+" ok again", func(st status) bool { return st.host(h.name).Gossip == "ok" }))
	t.Logf("gossip is back after %v", time.Since(begin).Round(time.Second))
}

// testSleeper stops a whole host before two rotations. It comes back with a
// file two generations old, pulls at once, and its agent catches up.
func (f *fleet) testSleeper(t *testing.T) {
	f.restart(t, "trustcast", "", "--gone-after", "5s", "--deadline", "8s")
	f.waitTrusted(t, time.Minute)
	h := f.hosts[2]
	must(t, h.stopAgent(syscall.SIGKILL))
	must(t, h.stopEngine())
	must(t, f.net.setLink(h.name, false))
	old, err := os.ReadFile(h.certFile())
	must(t, err)

	for _, deadline := range []string{"8s", "1s"} {
		n := f.beginRotation(t, "--deadline", deadline)
		must(t, f.server.wait(2*time.Minute, "rotation without "+h.name, func(st status) bool {
			return st.number() == n && st.Rotation.Phase == "idle" && st.host(h.name).State == "gone"
		}))
	}

	must(t, f.net.setLink(h.name, true))
	must(t, h.startEngine())
	f.pull(t, h)
	if now, err := os.ReadFile(h.certFile()); err != nil || string(now) != string(old) {
		t.Errorf("%s did not pull with its old file: %v", h.name, err)
	}
	must(t, h.startAgent())
	f.waitTrusted(t, time.Minute)
	f.pull(t, h)
	f.restart(t, "trustcast", "")
	f.waitTrusted(t, time.Minute)
}

const (
	goneAfter = 20 * time.Second
	// Long over when hosts are gone: so what holds the switch until then is
	// that the server does not take absence for granted.
	goneDeadline = 3 * time.Second
)

// killStaged kills the server with a rotation staged and pulls every host's
// cable before the server starts again. It returns the rotation's number.
func (f *fleet) killStaged(t *testing.T) int {
	t.Helper()
	settings := []string{"--gone-after", goneAfter.String(), "--deadline", goneDeadline.String()}
	f.restart(t, "trustcast", "", settings...)
	f.waitTrusted(t, time.Minute)
	release := f.hold(t, f.hosts[0])
	n := f.beginRotation(t)
	must(t, f.server.wait(30*time.Second, "staged, waiting for "+f.hosts[0].name, func(st status) bool {
		return st.number() == n && st.Rotation.Phase == "staged" && st.waitsFor(f.hosts[0].name)
	}))
	f.server.kill()
	f.setLinks(t, false)
	t.Cleanup(func() { f.setLinks(t, true) })
	release()
	must(t, f.server.start("trustcast", nil, settings...))
	return n
}

// testKilledStaged plugs the cables in again before anybody is gone: until then
// the server knows nothing of its hosts, so it waits for all.
func (f *fleet) testKilledStaged(t *testing.T) {
	n := f.killStaged(t)
	watchUntil := f.server.started.Add(goneAfter - 3*time.Second)
	for time.Now().Before(watchUntil) {
		st, err := f.server.status()
		must(t, err)
		if st.number() != n || st.Rotation.Phase != "staged" || !f.waitsForAll(st) {
			t.Fatalf("%v after its start, with all links down: rotation %d is %s, waiting for %v; want %d staged and all hosts waited for",
				time.Since(f.server.started), st.number(), st.Rotation.Phase, st.Rotation.WaitingFor, n)
		}
		time.Sleep(250 * time.Millisecond)
	}
	plugged := time.Now()
	f.setLinks(t, true)
	f.finish(t, n, plugged)
}

func (f *fleet) waitsForAll(st status) bool {
	for _, h := range f.hosts {
		if !st.waitsFor(h.name) {
			return false
		}
	}
	return true
}

// testKilledGone leaves the cables out: the switch comes without the hosts, but
// not before they count as gone.
func (f *fleet) testKilledGone(t *testing.T) {
	n := f.killStaged(t)
	gone := f.server.started.Add(goneAfter)
	must(t, f.server.wait(goneAfter+goneDeadline+30*time.Second, "switch without hosts", func(st status) bool {
		return st.number() == n && st.Rotation.Phase != "staged"
	}))
	f.setLinks(t, true)
	f.finish(t, n, gone)
}

// finish waits for the end of a rotation and for all hosts, and wants the
// switch not to have come before a moment.
func (f *fleet) finish(t *testing.T, n int, earliest time.Time) {
	t.Helper()
	must(t, f.server.wait(2*time.Minute, fmt.Sprintf("end of rotation %d", n), func(st status) bool {
		return st.number() == n && f.trusted(st)
	}))
	switched, err := f.server.phaseTime(n, "switched")
	must(t, err)
	// The log has milliseconds.
	if switched.Before(earliest.Truncate(time.Millisecond)) {
		t.Errorf("switched at %v, want not before %v", switched, earliest)
	}
	t.Logf("server started %v, switched %v later", f.server.started.UTC(), switched.Sub(f.server.started).Round(time.Millisecond))
	for _, h := range f.hosts {
		f.pull(t, h)
	}
}

// preparePast gives the first host certificates that others have put there, and
// returns all hosts' files for testLeave.
func (f *fleet) preparePast(t *testing.T) map[string]map[string]string {
	t.Helper()
	certs := f.hosts[0].certsDir()
	for _, file := range []string{domain + "/ca.crt", domain + "/operator.crt", "other.test:5000/ca.crt"} {
		path := filepath.Join(certs, file)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, foreignCA(t), 0o644))
	}
	before := map[string]map[string]string{}
	for _, h := range f.hosts {
		files, err := h.tree()
		must(t, err)
		before[h.name] = files
	}
	return before
}

// testLeave wants every host's files as they were before it joined.
func (f *fleet) testLeave(t *testing.T, before map[string]map[string]string) {
	must(t, f.each(func(h *host) error {
		if err := h.stopAgent(syscall.SIGTERM); err != nil {
			return err
		}
		_, err := h.agentCommand("leave")
		return err
	}))
	for _, h := range f.hosts {
		after, err := h.tree()
		must(t, err)
		if !maps.Equal(before[h.name], after) {
			t.Errorf("%s: certs.d is %q after leave, was %q", h.name, after, before[h.name])
		}
	}
	f.refusedEverywhere(t)
}

// foreignCA is a certificate that has nothing to do with the registry.
func foreignCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "foreign"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
