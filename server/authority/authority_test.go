package authority

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

// rig is an authority over real records and keys, with an edge and a fleet that
// the test plays.
type rig struct {
	t       *testing.T
	a       *Authority
	cfg     Config
	keys    *records.Keys
	hosts   []HostReport
	current map[string]*tls.Certificate
	next    map[string]*tls.Certificate
	refuse  error // what Publish answers to a next
	saw     []string
	dir     string // of the records
}

func newRig(t *testing.T, set ...func(*Config)) *rig {
	t.Helper()
	return newRigBy(t, Create, set...)
}

// newRigBy is newRig with another beginning.
func newRigBy(t *testing.T, begin func(Config, time.Time, string) (certs.Bundle, error), set ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	store, err := records.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.keys, err = records.OpenKeys(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	name, err := certs.ParseName("registry.example.com", certs.DefaultPort)
	if err != nil {
		t.Fatal(err)
	}
	r.cfg = Config{
		Records: store, Keys: r.keys, Names: []certs.Name{name}, Subject: pkix.Name{Organization: []string{"Example"}},
		CALife: 365 * 24 * time.Hour, LeafLife: 30 * 24 * time.Hour, Tick: time.Minute, Deadline: 10 * time.Minute,
		Hosts: func() []HostReport { return r.hosts },
		Host: func(id string) (HostReport, bool) {
			for _, h := range r.hosts {
				if h.ID == id {
					return h, true
				}
			}
			return HostReport{}, false
		},
		Cover: func(id string) error {
			for i := range r.hosts {
				r.hosts[i].Covered = r.hosts[i].Covered || r.hosts[i].ID == id
			}
			return nil
		},
		Uncover: func(id string) error {
			for i := range r.hosts {
				r.hosts[i].Covered = r.hosts[i].Covered && r.hosts[i].ID != id
			}
			return nil
		},
		Publish:  r.publish,
		Announce: func() { r.saw = append(r.saw, "announce") },
		Log:      slog.New(slog.DiscardHandler),
	}
	for _, f := range set {
		f(&r.cfg)
	}
	if _, err := begin(r.cfg, time.Now(), "test"); err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.a, err = Open(r.cfg); err != nil {
		r.t.Fatal(err)
	}
	r.steps()
}

func (r *rig) publish(current, next map[string]*tls.Certificate) error {
	if next != nil && r.refuse != nil {
		return r.refuse
	}
	r.current, r.next = current, next
	r.saw = append(r.saw, "publish")
	return nil
}

// steps runs the authority until it has nothing to do.
func (r *rig) steps() {
	r.t.Helper()
	for {
		again, err := r.a.step(time.Now())
		if err != nil {
			r.t.Fatal(err)
		}
		if !again {
			return
		}
	}
}

func (r *rig) phase() Phase { return r.a.rec.Rotation.Phase }

// ack has a host install what is wanted and report it honestly.
func (r *rig) ack(id string) {
	r.t.Helper()
	w := r.a.Wanted()
	e := certs.Evidence{
		Revision: w.Revision, Rotation: w.Number, Generation: w.Bundle.Generation, Fingerprint: w.Bundle.Fingerprint(),
		Offline: true, Live: certs.OK,
	}
	for _, root := range w.Bundle.Roots {
		for _, l := range w.Leaves {
			leaf, err := certs.ParseCertificate(l.Cert)
			if err != nil {
				r.t.Fatal(err)
			}
			if certs.VerifyAlone(leaf, root, l.Host, time.Now()) == nil {
				e.SoloRoots = append(e.SoloRoots, certs.FingerprintOf(root))
			}
			if l.Next {
				e.Probe = certs.OK
			}
		}
	}
	i := slices.IndexFunc(r.hosts, func(h HostReport) bool { return h.ID == id })
	if i < 0 {
		r.hosts = append(r.hosts, HostReport{ID: id, Name: id})
		i = len(r.hosts) - 1
	}
	r.hosts[i].Present, r.hosts[i].Evidence, r.hosts[i].Received = true, &e, time.Now()
	r.steps()
}

// TestKeysFollowTheRecord: S3, at every phase the key files are those that the
// record names, and each CA has a key iff it is active or other.
func TestKeysFollowTheRecord(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	check := func(when string, cas int) {
		t.Helper()
		have, err := r.keys.List()
		if err != nil {
			t.Fatal(err)
		}
		want := r.a.Keys()
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("%s: key files %v, the record names %v", when, have, want)
		}
		if len(want) != 2*cas { // a CA and its leaf
			t.Errorf("%s: %d keys for %d CAs", when, len(want), cas)
		}
	}
	check("idle", 1)
	if _, _, err := r.a.Rotate("test", Start{}); err != nil {
		t.Fatal(err)
	}
	r.steps()
	check("staged", 2)
	r.ack("web-1")
	if r.phase() != Switched {
		t.Fatalf("%s after the evidence", r.phase())
	}
	check("switched", 2)
	r.ack("web-1")
	check("retiring", 1)
	r.ack("web-1")
	if r.phase() != Idle || r.a.rec.Rotation.Generation != 3 {
		t.Fatalf("%s at generation %d", r.phase(), r.a.rec.Rotation.Generation)
	}
	check("idle again", 1)
}

// TestReopenInEachPhase: the record is all that is needed to carry on.
func TestReopenInEachPhase(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	if _, _, err := r.a.Rotate("test", Start{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Phase{Staged, Switched, Retiring, Idle} {
		r.hosts[0].Evidence = nil // volatile
		r.open()
		if r.phase() != want {
			t.Fatalf("%s after reopening, want %s", r.phase(), want)
		}
		leaf := r.current["registry.example.com"].Leaf
		active, err := r.a.rec.cert(r.a.rec.Rotation.Active)
		if err != nil {
			t.Fatal(err)
		}
		if err := certs.VerifyAlone(leaf, active, "registry.example.com", time.Now()); err != nil {
			t.Errorf("%s: the edge does not serve the active CA's leaf: %v", want, err)
		}
		if offered := r.next != nil; offered != (want == Staged) {
			t.Errorf("%s: a future chain is offered: %v", want, offered)
		}
		r.ack("web-1")
	}
}

// TestPublishBeforeAnnounce: who is told finds the chain that he is told about.
func TestPublishBeforeAnnounce(t *testing.T) {
	r := newRig(t)
	r.saw = nil
	if _, _, err := r.a.Rotate("test", Start{}); err != nil {
		t.Fatal(err)
	}
	if len(r.saw) != 0 {
		t.Errorf("before Run looked: %v", r.saw)
	}
	r.steps() // an empty fleet: all the way
	for i, what := range r.saw {
		if want := []string{"publish", "announce"}[i%2]; what != want {
			t.Fatalf("%v: want publish and announce in turn", r.saw)
		}
	}
}

// TestRefusedNextHoldsTheSwitch: an edge that refuses the future chain goes on
// serving and is named; rollback works.
func TestRefusedNextHoldsTheSwitch(t *testing.T) {
	r := newRig(t)
	r.ack("web-1")
	r.refuse = errors.New("the name is wrong")
	if _, _, err := r.a.Rotate("test", Start{}); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	state, err := r.a.State()
	if err != nil {
		t.Fatal(err)
	}
	if r.phase() != Staged || len(state.Waiting) != 1 || state.Waiting[0].Host != "edge" {
		t.Fatalf("%s, waiting for %v", r.phase(), state.Waiting)
	}
	if err := r.a.Rollback("test"); err != nil {
		t.Fatal(err)
	}
	r.steps()
	r.ack("web-1")
	if r.phase() != Idle || r.a.rec.Rotation.Active != 1 {
		t.Fatalf("%s with CA %d after rollback", r.phase(), r.a.rec.Rotation.Active)
	}
}

// TestLeafRenewal: a new leaf and key under the same CA and generation, a new
// revision, and the old key is gone.
func TestLeafRenewal(t *testing.T) {
	r := newRig(t)
	before, old := r.a.Wanted(), r.a.Keys()
	r.cfg.LeafLife = time.Hour // from now on; the first leaf stays as it was made
	r.open()
	leaf := r.current["registry.example.com"].Leaf
	due := renewAt(leaf, r.a.rec.Leaves[0].Made)
	if again, err := r.a.step(due.Add(-time.Second)); again || err != nil {
		t.Fatalf("renewed before its time: %v, %v", again, err)
	}
	r.cfg.LeafLife = 30 * 24 * time.Hour
	r.open()
	again, err := r.a.step(due)
	if !again || err != nil {
		t.Fatalf("not renewed in time: %v, %v", again, err)
	}
	r.steps()
	after := r.a.Wanted()
	if after.Bundle.Generation != before.Bundle.Generation || after.Revision == before.Revision {
		t.Errorf("generation %d -> %d, revision %d -> %d", before.Bundle.Generation, after.Bundle.Generation, before.Revision, after.Revision)
	}
	if renewed := r.current["registry.example.com"].Leaf; renewed.Equal(leaf) {
		t.Error("the edge still serves the old leaf")
	}
	have, err := r.keys.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(have) != 2 || slices.Equal(old, r.a.Keys()) {
		t.Errorf("keys %v, were %v", have, old)
	}
}

// TestRotationByAge: at two thirds of the CA's life, in the window, by itself.
func TestRotationByAge(t *testing.T) {
	r := newRig(t)
	cert, err := r.a.rec.cert(1)
	if err != nil {
		t.Fatal(err)
	}
	due := renewAt(cert, cert.NotBefore.Add(certs.CABackdate))
	life := r.cfg.CALife
	if early := time.Until(due); early < life*2/3-time.Minute || early > life*2/3+life/20 {
		t.Errorf("due in %s of %s", early, life)
	}
	r.a.rec.Leaves[0].Made = due // leaves are not this test's business
	if _, err := r.a.step(due.Add(-time.Hour)); err != nil || r.phase() != Idle {
		t.Fatalf("%s before its time (%v)", r.phase(), err)
	}
	closed, err := ParseWindow(due.UTC().Add(time.Hour).Format("15:04") + "-" + due.UTC().Add(2*time.Hour).Format("15:04"))
	if err != nil {
		t.Fatal(err)
	}
	r.a.cfg.Window = closed
	if _, err := r.a.step(due); err != nil || r.phase() != Idle {
		t.Fatalf("%s outside of the window (%v)", r.phase(), err)
	}
	r.a.cfg.Window = Window{}
	if _, err := r.a.step(due); err != nil || r.phase() != Staged {
		t.Fatalf("%s when due (%v)", r.phase(), err)
	}
	history := r.a.rec.History
	if last := history[len(history)-1]; last.Event != "rotate" || last.By != "age" {
		t.Errorf("history says %+v", last)
	}
}

func TestWindow(t *testing.T) {
	at := func(s string) time.Time {
		clock, err := time.Parse("15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return clock
	}
	for window, cases := range map[string]map[string]bool{
		"":            {"00:00": true, "12:00": true},
		"02:00-04:30": {"01:59": false, "02:00": true, "04:29": true, "04:30": false},
		"22:00-04:00": {"21:59": false, "23:00": true, "03:59": true, "04:00": false},
	} {
		w, err := ParseWindow(window)
		if err != nil {
			t.Fatal(err)
		}
		for clock, open := range cases {
			if w.Open(at(clock)) != open {
				t.Errorf("%q at %s: want open %v", window, clock, open)
			}
		}
	}
	for _, bad := range []string{"2", "25:00-26:00", "02:00", "a-b"} {
		if _, err := ParseWindow(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestTrustsIsX509: the tests' pure idea of "this disk verifies what is served"
// agrees with crypto/x509, over random rotations, disks and cut chains.
func TestTrustsIsX509(t *testing.T) {
	const host, generations, tries = "registry.example.com", 6, 400
	r := newRig(t)
	cas := map[CAID]certs.CA{}
	links := map[Link]*x509.Certificate{}
	leaves := map[CAID]*x509.Certificate{}
	for id := CAID(1); id <= generations; id++ {
		_, ca, made, err := r.a.maker.newCA(id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if leaves[id], err = x509.ParseCertificate(made[0].Cert); err != nil {
			t.Fatal(err)
		}
		for by, signer := range cas { // every CA signs every later one
			if links[Link{CA: id, By: by}], err = signer.SignNext(ca.Cert); err != nil {
				t.Fatal(err)
			}
		}
		cas[id] = ca
	}
	var all []Link
	for l := range links {
		all = append(all, l)
	}
	agreed := map[bool]int{}
	for range tries {
		s := Serving{Active: 1 + CAID(rand.IntN(generations))}
		for _, i := range rand.Perm(len(all))[:rand.IntN(5)] {
			s.Chain = append(s.Chain, all[i])
		}
		var disk []CAID
		for id := CAID(1); id <= generations; id++ {
			if rand.IntN(3) == 0 {
				disk = append(disk, id)
			}
		}
		chain := []*x509.Certificate{leaves[s.Active]}
		for _, l := range s.Chain {
			chain = append(chain, links[l])
		}
		var roots []*x509.Certificate
		for _, id := range disk {
			roots = append(roots, cas[id].Cert)
		}
		real := certs.VerifyServed(chain, roots, host, time.Now()) == nil
		if pure := trusts(disk, s); pure != real {
			t.Fatalf("disk %v, serving %d with %s: pure %v, crypto/x509 %v", disk, s.Active, linksText(s.Chain), pure, real)
		}
		agreed[real]++
	}
	if agreed[true] < tries/20 || agreed[false] < tries/20 {
		t.Errorf("the cases were one-sided: %v", agreed)
	}
}
