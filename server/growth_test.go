package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/registry"
)

// smallFleet and largeFleet are compared: what a host costs must not depend on how
// many there are.
const (
	smallFleet = 20
	largeFleet = 10 * smallFleet
	// grownLimit is far below the tenfold of a look at every host for each report, and
	// above what a few looks a phase make of it.
	grownLimit = 3
)

// TestWorkOfAHostDoesNotGrow: what the server allocates for one host's join, report,
// rotation and roll of the gossip key, and its largest record, are about the same in
// a small fleet and in one that is ten times larger. It fails when somebody looks at
// all hosts, or writes all of them, for each that reports.
func TestWorkOfAHostDoesNotGrow(t *testing.T) {
	small, large := workOfAHost(t, smallFleet), workOfAHost(t, largeFleet)
	for what, before := range small {
		after := large[what]
		t.Logf("%s: %.0f bytes with %d hosts, %.0f with %d", what, before, smallFleet, after, largeFleet)
		if after > grownLimit*before {
			t.Errorf("%s: %.0f bytes with %d hosts and %.0f with %d: it grows with the fleet", what, before, smallFleet, after, largeFleet)
		}
	}
}

// workOfAHost is what one host of a fleet costs on average, in bytes that the server
// allocates; and the size of the largest record.
func workOfAHost(t *testing.T, hosts int) map[string]float64 {
	t.Helper()
	dir, work := t.TempDir(), map[string]float64{}
	synctest.Test(t, func(t *testing.T) {
		p := newPopulation(t, dir, hosts)
		defer p.end()
		measure := func(what string, do func()) {
			before := allocated()
			do()
			synctest.Wait()
			work[what] = float64(allocated()-before) / float64(hosts)
		}
		measure("join", p.join)
		measure("report", p.report)
		measure("rotation", func() {
			if _, _, err := p.node.authority.Rotate("test", authority.Start{}); err != nil {
				t.Fatal(err)
			}
			for _, phase := range []authority.Phase{authority.Staged, authority.Switched, authority.Retiring, authority.Idle} {
				synctest.Wait()
				if state, err := p.node.authority.State(); err != nil || state.Rotation.Phase != phase {
					t.Fatalf("the rotation is %s, not %s: %v", state.Rotation.Phase, phase, err)
				}
				p.report()
			}
		})
		time.Sleep(2 * p.node.cfg.Tick) // before that no roll advances
		p.report()
		measure("roll of the gossip key", func() {
			if _, err := p.node.rollGossip("test"); err != nil {
				t.Fatal(err)
			}
			for p.node.identity.Ring().Step() != identity.RingIdle {
				p.report()
			}
		})
		work["largest record"] = p.largestRecord()
	})
	return work
}

// allocated is how much this process allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// population is a server without ports, and the hosts that report to it.
type population struct {
	t       *testing.T
	node    *node
	token   certs.Token
	csrs    [][]byte
	streams []*fleet.Stream
	seq     uint64
	stop    func()
}

func newPopulation(t *testing.T, dir string, hosts int) *population {
	t.Helper()
	if _, err := Init(t.Context(), InitConfig{DataDir: dir, Domain: "registry.example.com:5000"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n, err := open(ctx, Config{DataDir: dir, Engine: registry.Fixed{}}.withDefaults(), layout{dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.authority.Publish(); err != nil {
		t.Fatal(err)
	}
	p := &population{t: t, node: n, stop: cancel}
	if p.token, _, err = n.identity.CreateToken(identity.TokenOptions{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for range hosts {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		p.csrs = append(p.csrs, csr)
	}
	for _, run := range []func(context.Context) error{n.authority.Run, n.keepRing} {
		go func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	synctest.Wait()
	return p
}

func (p *population) end() {
	for _, s := range p.streams {
		s.Close()
	}
	p.stop()
	p.node.close()
}

// join enrols all hosts, each with its first evidence.
func (p *population) join() {
	for i, csr := range p.csrs {
		h, _, _, err := p.node.identity.Enroll(identity.Enrollment{TokenID: p.token.ID, Secret: p.token.Secret, CSR: csr, Name: fmt.Sprintf("host-%d", i)}, time.Now())
		if err != nil {
			p.t.Fatal(err)
		}
		s, err := p.node.fleet.Attach(context.Background(), h.ID, "")
		if err != nil {
			p.t.Fatal(err)
		}
		p.streams = append(p.streams, s)
		p.reportOne(s)
	}
}

// report has each host report once that it has all that is wanted now.
func (p *population) report() {
	for _, s := range p.streams {
		p.reportOne(s)
	}
}

// reportOne returns when the server has nothing to do any more, so that no two reports
// share what they cause.
func (p *population) reportOne(s *fleet.Stream) {
	p.seq++
	w := p.node.authority.Wanted()
	e := certs.Evidence{
		Boot: 1, Sequence: p.seq, Revision: w.Revision, Rotation: w.Number, Generation: w.Bundle.Generation,
		Fingerprint: w.Bundle.Fingerprint(), Offline: true, Probe: certs.OK, Live: certs.OK,
	}
	for _, root := range w.Bundle.Roots {
		e.SoloRoots = append(e.SoloRoots, certs.FingerprintOf(root))
	}
	if err := s.Report(e, fleet.Details{GossipVersion: p.node.identity.Ring().Version}); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

func (p *population) largestRecord() (size float64) {
	err := filepath.WalkDir(p.node.layout.records(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size = max(size, float64(info.Size()))
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return size
}
