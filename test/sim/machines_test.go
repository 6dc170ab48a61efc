package sim

import (
	"context"
	"crypto/x509"
	"fmt"
	"github.com/trustcast/trustcast/agent"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// joinAnew wipes a stopped host's disk and has it join with a token.
func (w *world) joinAnew(name, token string) {
	h := w.host(name)
	h.awaitEnd(w.t)
	if err := os.RemoveAll(h.dir); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	delete(w.gens, name)
	h.token = token
	w.mu.Unlock()
	w.startAgent(name)
}

// cloneOf starts an agent on a copy of a host's state.
func (w *world) cloneOf(name string, number int) *process {
	h := w.host(name)
	twin := &host{name: name, dir: fmt.Sprintf("%s-clone-%d", h.dir, number), gossip: fmt.Sprintf("10.9.%d.1:7947", number)}
	if err := os.CopyFS(twin.state(), os.DirFS(h.state())); err != nil {
		w.t.Fatal(err)
	}
	cfg := w.agentConfig(twin)
	p := start(func(ctx context.Context) error { return agent.Run(ctx, cfg) })
	w.twins = append(w.twins, p)
	return p
}

// offline cuts a host's streams; its gossip is somebody else's business.
func (w *world) offline(name string, down bool) {
	w.mu.Lock()
	h := w.hosts[name]
	if h.up = !down; down {
		h.downSince = time.Now()
	} else {
		h.upSince = time.Now()
	}
	w.mu.Unlock()
	w.net.cut(name, down)
}

// identityEnds is when the identity on a host's disk expires.
func identityEnds(t *testing.T, h *host) time.Time {
	t.Helper()
	var identity struct{ Cert []byte }
	if !readJSON(filepath.Join(h.state(), "identity.json"), &identity) {
		t.Fatalf("%s has no identity", h.name)
	}
	cert, err := x509.ParseCertificate(identity.Cert)
	if err != nil {
		t.Fatalf("%s: %v", h.name, err)
	}
	return cert.NotAfter
}
