package registry

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

// TestDockerEngineComesLater: without an engine there is a Docker all the same, whose
// replicas open when there is one.
func TestDockerEngineComesLater(t *testing.T) {
	engine := newDockerd(t)
	image := images.Registry(t)
	images.Load(t, engine.host(), image)
	root, err := DockerVolume(t.Context(), engine.host(), "vol", "registry.test:5000")
	must(t, err)
	engine.stop(t, syscall.SIGTERM)

	var log bytes.Buffer
	cfg := DockerConfig{
		Domain: "registry.test:5000", Fleet: "fleet", Volume: "vol", Root: root, Image: image, HTTPSecret: "secret", Host: engine.host(),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	d, err := NewDocker(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = d.api.Close() })
	cfg.Volume = "another"
	mistaken, err := NewDocker(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = mistaken.api.Close() })
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), engine.host()) {
		t.Errorf("the log says nothing: %s", &log)
	}
	_, found := d.Found(t.Context(), "")
	_, opened := d.Open(t.Context(), "")
	for _, err := range []error{found, opened} {
		if err == nil || !strings.Contains(err.Error(), "start the engine, or say with DOCKER_HOST where it is") {
			t.Errorf("error %v", err)
		}
	}

	engine.start(t)
	if left, err := d.Found(t.Context(), ""); err != nil || len(left) > 0 {
		t.Errorf("found %v (%v)", left, err)
	}
	e := open(t, d)
	if resp := answer(t, over(t, e), http.MethodGet, "/v2/", nil); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	// What a start would have refused is refused now.
	_, found = mistaken.Found(t.Context(), "")
	_, opened = mistaken.Open(t.Context(), "")
	for _, err := range []error{found, opened} {
		if err == nil || !strings.Contains(err.Error(), "there is no Docker volume another") {
			t.Errorf("error %v", err)
		}
	}
}

// An engine that takes connections and says nothing counts as none.
func TestSilentEngine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", socket) // the kernel takes connections for it
	must(t, err)
	defer func() { _ = lis.Close() }()
	api, err := newClient("unix://" + socket)
	must(t, err)
	defer func() { _ = api.Close() }()
	err = ping(t.Context(), api, 10*time.Millisecond)
	if !unreachable(err) || !strings.Contains(err.Error(), "does not answer within 10ms") {
		t.Errorf("error %v", err)
	}
}

func TestMemoryOf(t *testing.T) {
	const mib = 1 << 20
	for machine, want := range map[int64]int64{100 * mib: 0, 128 * mib: 64 * mib, 970 * mib: 448 * mib, 4096*mib - 1: 1984 * mib, 1 << 40: 1 << 39} {
		if got := memoryOf(machine); got != want {
			t.Errorf("of %d MiB a replica gets %d, want %d", machine/mib, got/mib, want/mib)
		}
	}
}
