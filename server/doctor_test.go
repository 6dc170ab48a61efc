package server

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/records"
)

// TestDoctorSaysWhatAils makes one ailment a case on a server with two hosts, and looks
// at the check that is about it. The control is the same check before.
func TestDoctorSaysWhatAils(t *testing.T) {
	for _, c := range []struct {
		name, id string
		ail      func(*population, *testing.T)
		want     string
	}{
		{"hosts are gone", "hosts.host", (*population).abandoned, checkWarn},
		{"a host refuses", "hosts.host", func(p *population, _ *testing.T) { p.says(0, certs.Evidence{Problem: "it cannot"}, fleet.Details{}) }, checkFail},
		{"a host lags", "hosts.host", func(p *population, t *testing.T) { p.rotates(t) }, checkWarn},
		{"a host is cloned", "hosts.clones", (*population).cloned, checkFail},
		{"identities end", "hosts.identities", func(p *population, _ *testing.T) { p.later(80 * day); p.report() }, checkWarn},
		{"clocks are two minutes apart", "clock.skew", skewed(2 * time.Minute), checkWarn},
		{"clocks are two hours apart", "clock.skew", skewed(-2 * time.Hour), checkFail},
		{"a rotation waits", "rotation.waiting", func(p *population, t *testing.T) { p.rotates(t) }, checkWarn},
		{"a rotation waits past its deadline", "rotation.waiting", func(p *population, t *testing.T) {
			p.rotates(t)
			for range 15 {
				time.Sleep(time.Minute)
				p.says(0, certs.Evidence{Problem: "it cannot"}, fleet.Details{})
			}
		}, checkFail},
		{"another server leads the fleet", "rotation.frozen", func(p *population, _ *testing.T) {
			for i := range p.streams {
				p.says(i, certs.Evidence{Generation: 9}, fleet.Details{})
			}
		}, checkFail},
		{"a replica fails", "engine.replica", (*population).replicaFails, checkWarn},
		{"the certificate was not renewed", "certificate.leaf", later(26 * day), checkWarn},
		{"the certificate has ended", "certificate.leaf", later(31 * day), checkFail},
		{"the CA was not replaced", "certificate.registry_ca", later(350 * day), checkWarn},
		{"the CA has ended", "certificate.registry_ca", later(366 * day), checkFail},
		{"the control CA ends", "certificate.control_ca", later(3640 * day), checkWarn},
		{"the server's identity has ended", "certificate.server_identity", later(31 * day), checkFail},
		{"the disk is nearly full", "disk.free", leastFree(3, 4), checkWarn},
		{"the disk is too full for pushes", "disk.free", leastFree(2, 1), checkFail},
		{"the disk is full", "disk.free", leastFree(8, 1), checkFail},
		{"there is no backup", "state.backup", func(p *population, t *testing.T) { p.backedUp(t, backupMade{}) }, checkWarn},
		{"the backup is older than the CA", "state.backup", func(p *population, t *testing.T) { p.backedUp(t, backupMade{Made: time.Now()}) }, checkWarn},
		{"the backup is old", "state.backup", later(31 * day), checkWarn},
		{"a key is missing", "state.keys", func(p *population, t *testing.T) { rename(t, p.key(t, 0), p.key(t, 0)+".away") }, checkFail},
		{"a key is another's", "state.keys", func(p *population, t *testing.T) {
			text, err := os.ReadFile(p.key(t, 1))
			if err == nil {
				err = os.WriteFile(p.key(t, 0), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, checkFail},
		{"others can read a key", "state.permissions", func(p *population, t *testing.T) {
			if err := os.Chmod(p.key(t, 0), 0o644); err != nil {
				t.Fatal(err)
			}
		}, checkFail},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				p := newPopulation(t, dir, 2)
				defer p.end()
				p.node.cfg.MinFree = 1
				p.join()
				p.backedUp(t, backupMade{Made: time.Now(), CAs: []certs.Fingerprint{certs.FingerprintOf(p.node.authority.Wanted().Bundle.Roots[0])}})
				if got := p.found(t, c.id); got != checkOK {
					t.Errorf("%s is %s before anything ails", c.id, got)
				}
				c.ail(p, t)
				if got := p.found(t, c.id); got != c.want {
					t.Errorf("%s is %s, want %s", c.id, got, c.want)
				}
			})
		})
	}
}

// TestDoctorSaysThatTheServerIsStuck: what the authority complains of is a failure.
func TestDoctorSaysThatTheServerIsStuck(t *testing.T) {
	for stuck, want := range map[string]int{"": 0, "no space left": 1} {
		f, fails := &findings{}, 0
		(&node{}).examineRotation(authority.State{Rotation: authority.Rotation{Phase: authority.Idle}, Stuck: stuck}, f)
		for _, c := range f.checks {
			if c.GetId() == "rotation.stuck" && c.GetState() == checkFail {
				fails++
			}
		}
		if fails != want {
			t.Errorf("stuck by %q: %d failures, want %d", stuck, fails, want)
		}
	}
}

// found is the worst state of the checks of an ID; ok when nothing is said.
func (p *population) found(t *testing.T, id string) string {
	t.Helper()
	f := &findings{}
	examineData(p.node.layout, p.node.cfg, f)
	state, err := p.node.authority.State()
	if err != nil {
		t.Fatal(err)
	}
	p.node.examineEngine(f)
	p.node.examineRotation(state, f)
	p.node.examineHosts(f)
	worst, order := checkOK, map[string]int{checkOK: 0, checkWarn: 1, checkFail: 2}
	for _, c := range f.checks {
		if c.GetId() == id && order[c.GetState()] > order[worst] {
			worst = c.GetState()
		}
		if c.GetState() != checkOK && (c.GetText() == "" || c.GetFix() == "") {
			t.Errorf("%s says not what it is, or what to do: %v", c.GetId(), c)
		}
	}
	return worst
}

// says has a host report what it has not.
func (p *population) says(i int, e certs.Evidence, d fleet.Details) {
	p.seq++
	e.Boot, e.Sequence = 1, p.seq
	if e.Generation == 0 {
		e.Generation = p.node.authority.Wanted().Bundle.Generation
	}
	if err := p.streams[i].Report(e, d); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

// later lets time pass in which the server's loops do nothing.
func (p *population) later(by time.Duration) {
	p.stop()
	synctest.Wait()
	time.Sleep(by)
}

func later(by time.Duration) func(*population, *testing.T) {
	return func(p *population, _ *testing.T) { p.later(by) }
}

func (p *population) abandoned(*testing.T) {
	for _, s := range p.streams {
		s.Close()
	}
	time.Sleep(p.node.cfg.GoneAfter + time.Minute)
	synctest.Wait()
}

func (p *population) rotates(t *testing.T) {
	t.Helper()
	if _, _, err := p.node.authority.Rotate("test", authority.Start{}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// cloned: another machine comes while the host itself answers.
func (p *population) cloned(t *testing.T) {
	t.Helper()
	go func() {
		time.Sleep(time.Second)
		p.reportOne(p.streams[0])
	}()
	if !p.node.fleet.Cloned(context.Background(), p.node.identity.Hosts()[0].ID, "192.0.2.1:1") {
		t.Error("no clone was seen")
	}
}

func skewed(by time.Duration) func(*population, *testing.T) {
	return func(p *population, _ *testing.T) {
		for i := range p.streams {
			p.says(i, certs.Evidence{}, fleet.Details{Timed: true, Skew: by})
		}
	}
}

func leastFree(times, of int64) func(*population, *testing.T) {
	return func(p *population, t *testing.T) {
		free, err := edge.FreeIn(p.node.layout.dir)()
		if err != nil {
			t.Fatal(err)
		}
		p.node.cfg.MinFree = int64(free) / of * times
	}
}

// replicaFails: nothing listens where a replica shall.
func (p *population) replicaFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.node.edge.Run(ctx, bufconn.Listen(1)) }()
	p.node.edge.Serve([]edge.Endpoint{{ID: "r1", Socket: filepath.Join(t.TempDir(), "none.sock")}})
	time.Sleep(time.Minute)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func (p *population) backedUp(t *testing.T, b backupMade) {
	t.Helper()
	var before backupMade
	revision, _ := p.node.store.Get(backupRecord, &before) // none at first
	if _, err := p.node.store.Put(backupRecord, revision, b); err != nil {
		t.Fatal(err)
	}
}

// key is the file of one of the keys.
func (p *population) key(t *testing.T, i int) string {
	t.Helper()
	f := &findings{}
	_, held, ok := examineRecords(p.node.layout.readRecords, records.ReadKeys(p.node.layout.keys()), f)
	if !ok {
		t.Fatalf("%v", f.checks)
	}
	var ids []records.KeyID
	for _, h := range held {
		if h.Key != "" {
			ids = append(ids, h.Key)
		}
	}
	found, err := filepath.Glob(filepath.Join(p.node.layout.keys(), string(ids[i])+"*"))
	if err != nil || len(found) == 0 {
		t.Fatalf("key %s: %v, %v", ids[i], found, err)
	}
	return found[0]
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
