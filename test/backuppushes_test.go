package test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

// saved is a backup that was made while clients pushed.
type saved struct {
	file string
	// before are the pushes that were acknowledged when it began, during counts those
	// that were from then until its end.
	before map[string]v1.Hash
	during int
}

// backUpDuring makes a backup when so many pushes are acknowledged, and stays at it
// until one more is: a server that lets pushes wait meanwhile fails.
func (s *registryServer) backUpDuring(p *pushes, least int) saved {
	s.t.Helper()
	p.await(s.t, least)
	b := saved{file: filepath.Join(s.t.TempDir(), "b.tar"), before: p.soFar()}
	s.backUp(b.file, func() { p.await(s.t, len(b.before)+1) })
	b.during = len(p.soFar()) - len(b.before)
	return b
}

// check pulls all that a registry has that was restored from the backup.
func (b saved) check(t *testing.T, r *registryServer, pushed map[string]v1.Hash) {
	t.Helper()
	got, err := pullAll(t.Context(), r.client())
	noError(t, err)
	for ref, h := range b.before {
		if got.tags[ref] != h {
			t.Errorf("%s is %s, pushed was %s", ref, got.tags[ref], h)
		}
	}
	for ref, h := range got.tags {
		if want, known := pushed[ref]; known && h != want { // "latest" moved, and the last pushes may have been cut
			t.Errorf("%s is %s, pushed was %s", ref, h, want)
		}
	}
	if b.during == 0 {
		t.Error("no push was acknowledged while the backup was made")
	}
	info, err := os.Stat(b.file)
	noError(t, err)
	t.Logf("backup of %d KiB: %d pushes acknowledged before it, %d during it; restored %d tags, whose %d manifests were pulled by digest",
		info.Size()>>10, len(b.before), b.during, len(got.tags), got.manifests)
}

// TestBackupDuringPushes: of each backup that is made while real clients push, all can
// be pulled, and it has whatever was pushed before it began.
func TestBackupDuringPushes(t *testing.T) {
	s := newRegistry(t)
	p := startPushes(t, s.client(), 3)
	var backups []saved
	for i := range 3 {
		backups = append(backups, s.backUpDuring(p, 5*(i+1)))
	}
	noError(t, p.end())
	for _, b := range backups {
		r := restored(t, b.file)
		b.check(t, r, p.soFar())
		r.stop()
	}
}

// TestBackupForTheOtherEngine: the same, where the restored registry runs on another
// engine than the one that was backed up.
func TestBackupForTheOtherEngine(t *testing.T) {
	docker := func(t *testing.T) (dir, image string) {
		t.Helper()
		dir, image = dataDir(t), images.Registry(t)
		volume := "tct-" + strings.ToLower(rand.Text()[:10])
		t.Cleanup(func() { removeVolume(t, volume) })
		initialize(t, server.InitConfig{DataDir: dir, EngineName: "docker", Volume: volume})
		return dir, image
	}
	t.Run("from docker", func(t *testing.T) {
		dir, image := docker(t)
		s := serve(t, dir, image)
		s.runsOn("docker", 2)
		p := startPushes(t, s.client(), 3)
		b := s.backUpDuring(p, 10)
		noError(t, p.end())
		r := restored(t, b.file)
		r.runsOn("embedded", 1)
		b.check(t, r, p.soFar())
	})
	t.Run("from embedded", func(t *testing.T) {
		dir, image := docker(t) // first, to be skipped before anything is pushed
		// As a hardened service has it: what replicas read was given to them.
		defer syscall.Umask(syscall.Umask(0o077))
		s := newRegistry(t)
		p := startPushes(t, s.client(), 3)
		b := s.backUpDuring(p, 10)
		noError(t, p.end())
		restore(t, server.RestoreConfig{DataDir: dir, Force: true}, b.file)
		r := serve(t, dir, image)
		r.runsOn("docker", 2)
		b.check(t, r, p.soFar())
	})
}

// runsOn checks which engine runs, with how many replicas.
func (s *registryServer) runsOn(engine string, replicas int) {
	s.t.Helper()
	r, err := s.api.GetRegistry(s.t.Context(), &pb.GetRegistryRequest{})
	noError(s.t, err)
	if r.GetEngine() != engine || len(r.GetReplicas()) != replicas {
		s.t.Errorf("it runs on %v", r)
	}
}

// removeVolume removes a volume of Docker, and what runs on it.
func removeVolume(t *testing.T, volume string) {
	t.Helper()
	left, err := exec.Command("docker", "ps", "--all", "--quiet", "--filter", "volume="+volume).Output()
	noError(t, err)
	if ids := strings.Fields(string(left)); len(ids) > 0 {
		if out, err := exec.Command("docker", append([]string{"rm", "--force"}, ids...)...).CombinedOutput(); err != nil {
			t.Errorf("remove the replicas: %v: %s", err, out)
		}
	}
	if out, err := exec.Command("docker", "volume", "rm", volume).CombinedOutput(); err != nil {
		t.Errorf("remove the volume: %v: %s", err, out)
	}
}

// TestPullAllNotices is the control of the tests above: whichever blob is altered or
// missing, not all can be pulled.
func TestPullAllNotices(t *testing.T) {
	s := newRegistry(t)
	c := s.client()
	c.options = append(c.options, remote.WithRetryBackoff(remote.Backoff{Steps: 1})) // it would be tried again
	_, err := writeImage(tag(t, "team/app:v1"), c.options)
	noError(t, err)
	_, err = writeIndex(tag(t, "team/multi:v1"), c.options)
	noError(t, err)
	_, err = pullAll(t.Context(), c)
	noError(t, err)
	blobs, err := filepath.Glob(filepath.Join(s.dir, "docker/registry/v2/blobs/sha256/*/*/data"))
	noError(t, err)
	const pushed = 5 + 1 + 3*4 // an image of three layers; an index of three of two
	if len(blobs) != pushed {
		t.Fatalf("the registry has %d blobs, not %d", len(blobs), pushed)
	}
	for _, blob := range blobs {
		data, err := os.ReadFile(blob)
		noError(t, err)
		// Longer, too: a manifest of the right length the server would serve right, since
		// it remembers the content.
		altered := append(append([]byte(nil), data...), ' ')
		altered[len(data)/2] ^= 1
		noError(t, os.WriteFile(blob, altered, 0o600))
		if _, err := pullAll(t.Context(), c); err == nil {
			t.Errorf("%s is altered, and everything was pulled", blob)
		}
		noError(t, os.Remove(blob))
		if _, err := pullAll(t.Context(), c); err == nil {
			t.Errorf("%s is missing, and everything was pulled", blob)
		}
		noError(t, os.WriteFile(blob, data, 0o600))
	}
	_, err = pullAll(t.Context(), c)
	noError(t, err)
}
