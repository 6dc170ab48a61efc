package contract

import (
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/server"
)

// save writes a backup of a server that was ended.
func (s *site) save() (tar string) {
	s.t.Helper()
	tar = filepath.Join(s.t.TempDir(), "b.tar")
	f, err := os.Create(tar)
	must(s.t, err)
	defer func() { must(s.t, f.Close()) }()
	must(s.t, server.BackUp(s.t.Context(), server.BackupConfig{DataDir: s.cfg.DataDir}, f))
	return tar
}

func (s *site) restore(tar string, cfg server.RestoreConfig) {
	s.t.Helper()
	f, err := os.Open(tar)
	must(s.t, err)
	defer func() { _ = f.Close() }()
	_, err = server.Restore(s.t.Context(), cfg, f)
	must(s.t, err)
}

// Replicas outlive their server, so a restore may find them at work. Nobody reaches
// them then, and the next server ends each before it serves: they would go on with
// what they knew.
func TestRestoreUnderReplicas(t *testing.T) {
	s := open(t, "docker")
	first := s.push("app:v1", 50_000, 2)
	s.end()
	tar := s.save()
	s.start()
	s.push("app:v2", 50_000, 2)
	s.end()
	left := s.containers()
	if len(left) != 2 {
		t.Fatalf("%d replicas outlived the server, want 2", len(left))
	}
	s.restore(tar, server.RestoreConfig{DataDir: s.cfg.DataDir, Force: true})
	if still := s.containers(); !slices.Equal(still, left) {
		t.Fatalf("the restore did something to replicas: %v, before it %v", still, left)
	}
	s.start()
	for _, id := range s.containers() {
		if slices.Contains(left, id) {
			t.Errorf("%s serves what was restored, and was there before", id)
		}
	}
	s.meet()
	must(t, s.pull("app:v1", first))
	s.want(http.StatusNotFound, http.MethodGet, "/v2/app/manifests/v2", nil)
	must(t, s.pull("app:v3", s.push("app:v3", 50_000, 1)))
}

// On a new machine one command makes the volume and what is in it.
func TestRestoreIntoANewVolume(t *testing.T) {
	private(t)
	s := open(t, "embedded")
	image := s.push("app:v1", 50_000, 2)
	s.end()
	tar := s.save()
	s.runInContainers()
	volume := "tcc-" + strings.ToLower(rand.Text()[:10])
	t.Cleanup(func() { s.removeVolume(volume) })
	s.cfg.DataDir = filepath.Join(filepath.Dir(s.cfg.DataDir), "new")
	s.restore(tar, server.RestoreConfig{DataDir: s.cfg.DataDir, EngineName: "docker", Volume: volume})
	s.start()
	s.meet()
	if got := s.registry().GetEngine(); got != "docker" {
		t.Errorf("the restored registry runs on %s", got)
	}
	must(t, s.pull("app:v1", image))
	must(t, s.pull("app:v2", s.push("app:v2", 50_000, 1)))
}
