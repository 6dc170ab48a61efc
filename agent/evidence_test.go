package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// dockerHost is an agent's loop without a server: the test offers and looks.
type dockerHost struct {
	*membership
	t     *testing.T
	dials int
	edge  string // the registry's address, "" when nobody answers
}

func newDockerHost(t *testing.T) *dockerHost {
	t.Helper()
	dir := t.TempDir()
	h := &dockerHost{t: t}
	names, err := parseNames("registry.test:5000", nil)
	if err != nil {
		t.Fatal(err)
	}
	control, _ := authorityFor(t, "registry.test") // any CA: no server is talked to
	h.membership = &membership{
		cfg: Config{DataDir: dir, Dial: h.dial}.withDefaults(), store: store{dir: dir}, log: slog.New(slog.DiscardHandler),
		host: install.Host{Places: []install.Place{{Runtime: install.RuntimeDocker, Dir: filepath.Join(dir, "certs.d")}}}, names: names,
		enrolment: enrolment{Domain: "registry.test:5000", ControlCAs: [][]byte{control.Raw}},
	}
	h.link = newLink(h.membership)
	return h
}

func (h *dockerHost) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	h.dials++
	return (&net.Dialer{}).DialContext(ctx, network, h.edge)
}

func (h *dockerHost) file() string {
	return filepath.Join(h.host.Places[0].Dir, "registry.test:5000", "ca.crt")
}

func (h *dockerHost) write(path string, data []byte) {
	h.t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// offerOf is what a server wants: these CAs, and the leaf that the first issued.
func offerOf(generation, revision uint64, served *x509.Certificate, roots ...*x509.Certificate) *pb.Wanted {
	w := &pb.Wanted{
		Revision: revision, Generation: generation, Names: []string{"registry.test:5000"},
		Leaves: []*pb.Leaf{{Name: "registry.test", Certificate: served.Raw}},
	}
	for _, root := range roots {
		w.Bundle = append(w.Bundle, root.Raw)
	}
	return w
}

// TestEvidenceIsReRead: whatever was accepted and installed, evidence is what the
// files say now; and the next turn repairs what is ours.
func TestEvidenceIsReRead(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	other, _ := authorityFor(t, "registry.test")
	for what, c := range map[string]struct {
		harm      func(h *dockerHost)
		installed bool // the files have the bundle
		offline   bool // and are in effect
		repaired  bool // by the next turn
	}{
		"all is well":             {func(*dockerHost) {}, true, true, true},
		"the file is gone":        {func(h *dockerHost) { _ = os.Remove(h.file()) }, false, false, true},
		"the file is another one": {func(h *dockerHost) { h.write(h.file(), certs.EncodePEM(other)) }, false, true, true},
		"the file is cut":         {func(h *dockerHost) { h.write(h.file(), certs.EncodePEM(ca)[:100]) }, false, false, true},
		"a key without its cert":  {func(h *dockerHost) { h.write(filepath.Join(filepath.Dir(h.file()), "x.key"), nil) }, true, false, false},
		"the directory is a file": {func(h *dockerHost) { _ = os.RemoveAll(h.host.Places[0].Dir); h.write(h.host.Places[0].Dir, nil) }, false, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			h := newDockerHost(t)
			if problem := h.reconcile(offerOf(1, 1, pair.Leaf, ca)); problem != "" {
				t.Fatal(problem)
			}
			c.harm(h)
			e := h.prove(t.Context(), "")
			if got := e.Fingerprint == certs.FingerprintOf(ca); got != c.installed || (e.Generation == 1) != c.installed || (len(e.SoloRoots) == 1) != c.installed {
				t.Errorf("fingerprint right: %v, generation %d, %d roots alone", got, e.Generation, len(e.SoloRoots))
			}
			if e.Offline != c.offline {
				t.Errorf("in effect: %v (%s)", e.Offline, e.Problem)
			}
			_ = h.reconcile(nil) // what it could not do, evidence says
			if e := h.prove(t.Context(), ""); (e.Offline && e.Fingerprint == certs.FingerprintOf(ca)) != c.repaired {
				t.Errorf("after another turn: %+v", e)
			}
		})
	}
}

// TestFailedInstallIsSaid: what could not be written is a problem, of which the
// server hears; and what was accepted is on record before anything is installed.
func TestFailedInstallIsSaid(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	h := newDockerHost(t)
	h.write(h.host.Places[0].Dir, nil) // a file where the directory belongs
	problem := h.reconcile(offerOf(7, 1, pair.Leaf, ca))
	if !strings.Contains(problem, "install the CA") {
		t.Errorf("the problem is %q", problem)
	}
	if e := h.prove(t.Context(), problem); e.Problem != problem || e.Offline || e.Generation != 0 {
		t.Errorf("%+v", e)
	}
	var kept trusted
	if ok, err := h.store.read(trustedFile, &kept); err != nil || !ok || kept.Generation != 7 {
		t.Errorf("on record: %v, generation %d, %v", ok, kept.Generation, err)
	}
	if err := os.Remove(h.host.Places[0].Dir); err != nil {
		t.Fatal(err)
	}
	if problem := h.reconcile(nil); problem != "" { // the twin
		t.Errorf("still: %s", problem)
	}
	if have, err := os.ReadFile(h.file()); err != nil || cmp.Diff(have, certs.EncodePEM(ca)) != "" {
		t.Errorf("not installed: %v", err)
	}
}

// TestRefusedOfferChangesNothing: not on disk, not on record, and it is said.
func TestRefusedOfferChangesNothing(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	other, otherPair := authorityFor(t, "registry.test")
	wide, widePair := authorityFor(t, "registry.test", "registry.evil")
	foreign := offerOf(5, 2, widePair.Leaf, wide)
	foreign.Names = []string{"registry.evil:5000"}
	for what, offer := range map[string]*pb.Wanted{
		"an older generation":             offerOf(3, 2, otherPair.Leaf, other),
		"another bundle under generation": offerOf(4, 2, otherPair.Leaf, other),
		"for another domain":              foreign,
	} {
		t.Run(what, func(t *testing.T) {
			h := newDockerHost(t)
			if problem := h.reconcile(offerOf(4, 1, pair.Leaf, ca)); problem != "" {
				t.Fatal(problem)
			}
			if problem := h.reconcile(offer); problem == "" {
				t.Error("nothing is said")
			}
			if have, err := os.ReadFile(h.file()); err != nil || cmp.Diff(have, certs.EncodePEM(ca)) != "" {
				t.Errorf("the file changed (%v)", err)
			}
			var kept trusted
			if _, err := h.store.read(trustedFile, &kept); err != nil || kept.Generation != 4 || kept.Print != certs.FingerprintOf(ca) {
				t.Errorf("on record is generation %d (%v)", kept.Generation, err)
			}
			if problem := h.reconcile(offerOf(5, 3, otherPair.Leaf, other)); problem != "" { // the twin
				t.Errorf("a good one is refused: %s", problem)
			}
			if have, err := os.ReadFile(h.file()); err != nil || cmp.Diff(have, certs.EncodePEM(other)) != "" {
				t.Errorf("a good one is not installed (%v)", err)
			}
		})
	}
}

// TestHandshakesAreBelievedForAWhile: a good handshake is believed while the same
// certificate is served, and not for ever; one that was not good never is.
func TestHandshakesAreBelievedForAWhile(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	_, strange := authorityFor(t, "registry.test")
	h := newDockerHost(t)
	h.edge = serveTLS(t, pair)
	turn := func(offer *pb.Wanted, dials int, live certs.Outcome) {
		t.Helper()
		h.dials = 0
		if problem := h.reconcile(offer); problem != "" {
			t.Fatal(problem)
		}
		if e := h.prove(t.Context(), ""); e.Live != live || h.dials != dials {
			t.Errorf("revision %d: %q after %d dials, want %q after %d", e.Revision, e.Live, h.dials, live, dials)
		}
	}
	turn(offerOf(1, 1, pair.Leaf, ca), 1, certs.OK)
	turn(nil, 0, certs.OK)
	turn(offerOf(1, 2, pair.Leaf, ca), 0, certs.OK)
	turn(nil, 0, certs.OK)
	h.edge = serveTLS(t, strange) // something else answers from now on
	turn(nil, 0, certs.OK)
	h.proof.served = nil // it was about another certificate
	turn(offerOf(1, 3, pair.Leaf, ca), 1, certs.Intercepted)
	turn(nil, 1, certs.Intercepted) // what is not good is looked at each time
	h.proof = proof{revision: 3, fingerprint: certs.FingerprintOf(ca), live: certs.OK, ticks: shakeEvery}
	turn(nil, 1, certs.Intercepted) // nor is it believed for ever
}

// TestPinnedCADecides: at first contact a server counts only with a certificate
// that the pinned CA signed; the pinned CA's mere presence proves nothing.
func TestPinnedCADecides(t *testing.T) {
	ourCA, foreignCA := newControlCA(t), newControlCA(t)
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	ours, foreign := ourCA.cert(from, to), foreignCA.cert(from, to)
	server, impostor := ourCA.server(ours)[0], foreignCA.server(foreign)[0]
	for what, c := range map[string]struct {
		chain []*x509.Certificate
		good  bool
	}{
		"the server":                  {[]*x509.Certificate{server, ours}, true},
		"another CA":                  {[]*x509.Certificate{impostor, foreign}, false},
		"the pinned CA merely shown":  {[]*x509.Certificate{impostor, foreign, ours}, false},
		"the pinned CA shown first":   {[]*x509.Certificate{impostor, ours, foreign}, false},
		"nothing but the server's":    {[]*x509.Certificate{server}, false},
		"the CA as if it were server": {[]*x509.Certificate{ours}, false},
	} {
		p := &pinnedServer{pins: []string{certs.Pin(ours)}}
		err := p.config().VerifyConnection(tls.ConnectionState{PeerCertificates: c.chain})
		if (err == nil) != c.good || (p.ca != nil) != c.good {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestFilesMustAgree: one right file does not stand for another.
func TestFilesMustAgree(t *testing.T) {
	for what, c := range map[string]struct {
		found []install.Found
		want  certs.Fingerprint
	}{
		"all right":      {[]install.Found{{Fingerprint: "a"}, {Fingerprint: "a"}}, "a"},
		"the last wrong": {[]install.Found{{Fingerprint: "a"}, {Fingerprint: "b"}}, ""},
		"the first gone": {[]install.Found{{}, {Fingerprint: "a"}}, ""},
		"nothing there":  {nil, ""},
	} {
		if got, _ := proveFiles(c.found); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// TestWorstOfSeveralNames: a name whose certificate is refused is not hidden by
// one whose is good, in either order.
func TestWorstOfSeveralNames(t *testing.T) {
	ca, pair := authorityFor(t, "registry.test")
	h := newDockerHost(t)
	h.edge = serveTLS(t, pair)
	good, bad := certs.Name{Host: "registry.test", Port: 5000}, certs.Name{Host: "second.registry.test", Port: 5000}
	leaves := []leaf{{host: good.Host, cert: pair.Leaf}, {host: bad.Host, cert: pair.Leaf}}
	for want, orders := range map[certs.Outcome][][]certs.Name{
		certs.OK: {{good}, {good, good}}, certs.Refused: {{bad}, {good, bad}, {bad, good}},
	} {
		for _, names := range orders {
			if got, why := h.shake(t.Context(), names, leaves, []*x509.Certificate{ca}, false, ""); got != want {
				t.Errorf("%v: %q (%s), want %q", names, got, why, want)
			}
		}
	}
}
