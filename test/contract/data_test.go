package contract

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

// Whatever becomes of the registry's containers, images and users stay: they are in
// the volume.
func TestContainersCarryNothing(t *testing.T) {
	s := open(t, "docker")
	image := s.push("app:v1", 100_000, 2)
	for _, what := range [][]string{{"stop"}, {"kill"}, {"rm", "--force"}} {
		args, replicas := what, s.registry().GetReplicas()
		for _, replica := range replicas {
			args = append(args, "trustcast-localhost-"+replica.GetId())
		}
		if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
			t.Fatalf("docker %s: %v: %s", what[0], err, out)
		}
		s.replaced(replicas)
		must(t, s.pull("app:v1", image))
	}
	s.end()
	for _, replica := range s.containers() {
		if out, err := exec.Command("docker", "rm", "--force", replica).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	s.start()
	must(t, s.pull("app:v1", image)) // signed in as the user from before
}

// containers of this registry.
func (s *site) containers() []string {
	s.t.Helper()
	out, err := exec.Command("docker", "ps", "--all", "--quiet", "--filter", "label=io.trustcast.domain="+s.domain).Output()
	must(s.t, err)
	return strings.Fields(string(out))
}

// A server takes over the replicas that it left, and an embedded one takes over the
// data of the other, and gives it back.
func TestEnginesTakeOver(t *testing.T) {
	s := open(t, "docker")
	first := s.push("app:v1", 100_000, 2)
	before := s.containers()
	s.end()
	s.start()
	if after := s.containers(); len(before) != s.cfg.Replicas || strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("containers %v, before the restart %v", after, before)
	}
	must(t, s.pull("app:v1", first))

	docker := s.cfg
	private(t)
	s.must("stop", "")
	s.end()
	s.cfg.EngineName, s.cfg.Volume, s.cfg.Image, s.cfg.Replicas = "embedded", "", "", 0
	s.cfg.Registry.Section = nil
	s.start()
	s.must("start", "")
	if r := s.registry(); r.GetEngine() != "embedded" || len(s.containers()) > 0 {
		t.Errorf("the engine is %s, with containers %v", r.GetEngine(), s.containers())
	}
	must(t, s.pull("app:v1", first))
	second := s.push("app:v2", 100_000, 2) // as root
	s.end()
	s.cfg = docker
	s.start()
	must(t, s.pull("app:v1", first))
	must(t, s.pull("app:v2", second))
	third := s.push("app:v3", 100_000, 2) // next to what root wrote
	must(t, s.pull("app:v3", third))
}

// private has what this process makes be for its user alone, as a hardened service
// has it: what others read then was given to them.
func private(t *testing.T) {
	images.Registry(t) // before: its files are read by others
	was := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(was) })
}

// A backup of a registry of one engine is restored into one of the other.
func TestRestoreIntoTheOtherEngine(t *testing.T) {
	for from, to := range map[string]string{"embedded": "docker", "docker": "embedded"} {
		t.Run("from "+from, func(t *testing.T) {
			private(t)
			old := open(t, from)
			pushed := map[string]v1.Image{}
			for _, tag := range []string{"app:v1", "app:v2", "team/other:v1"} {
				pushed[tag] = old.push(tag, 50_000, 2)
			}
			tar := filepath.Join(t.TempDir(), "b.tar")
			f, err := os.Create(tar)
			must(t, err)
			old.end()
			must(t, server.BackUp(t.Context(), server.BackupConfig{DataDir: old.cfg.DataDir}, f))
			must(t, f.Close())

			fresh := open(t, to, readsFromReplicas)
			fresh.must("stop", "") // its replicas would be in the way of another registry's
			fresh.end()
			f, err = os.Open(tar)
			must(t, err)
			defer func() { _ = f.Close() }()
			_, err = server.Restore(t.Context(), server.RestoreConfig{DataDir: fresh.cfg.DataDir, Force: true}, f)
			must(t, err)
			// The old name is the registry's; it is reached where the fresh one was.
			fresh.domain, fresh.cfg.RegistryListen, fresh.cfg.Listen = old.domain, old.cfg.RegistryListen, old.cfg.Listen
			fresh.start()
			fresh.meet()
			if got := fresh.registry().GetEngine(); got != to {
				t.Errorf("the restored registry runs on %s, want %s", got, to)
			}
			for tag, image := range pushed {
				must(t, fresh.pull(tag, image))
			}
			must(t, fresh.pull("new:v1", fresh.push("new:v1", 50_000, 1)))
		})
	}
}

// small is a file system of this size (MiB) for the data.
const small = 64

// On a disk that is full a push fails and says why; pulls, deletions and a rotation
// go on, and with room again so do pushes.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		images.Skip(t, "needs root to mount a small file system")
	}
	var disk string
	s := open(t, "embedded", func(initial *server.InitConfig, cfg *server.Config) {
		disk = initial.DataDir
		must(t, os.Mkdir(disk, 0o700))
		must(t, syscall.Mount("none", disk, "tmpfs", 0, "size=64m"))
		t.Cleanup(func() { must(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
		cfg.MinFree = 16 << 20
	})
	s.push("app:v0", 1000, 1)
	image := s.push("app:v1", 1<<20, 2)
	big, err := random.Image(small<<20, 1)
	must(t, err)
	began := time.Now()
	err = remote.Write(s.ref("app:big"), big, s.options()...)
	if err == nil || !strings.Contains(err.Error(), "INSUFFICIENT_STORAGE") && !strings.Contains(err.Error(), "507") {
		t.Fatalf("a push that does not fit: %v", err)
	}
	t.Logf("a push of %d MiB on a disk of %d failed after %v: %v", small, small, time.Since(began).Round(time.Millisecond), err)
	filler := filepath.Join(disk, "filler")
	var free syscall.Statfs_t
	must(t, syscall.Statfs(disk, &free))
	if room := int64(free.Bavail)*free.Bsize - 3<<20; room > 0 {
		f, err := os.Create(filler)
		must(t, err)
		must(t, syscall.Fallocate(int(f.Fd()), 0, 0, room))
		must(t, f.Close())
	}
	s.until("pushes are refused", func() error {
		_, text := s.do("POST", "/v2/app/blobs/uploads/", nil)
		if !strings.Contains(text, "INSUFFICIENT_STORAGE") {
			return errText(text)
		}
		return nil
	})
	must(t, s.pull("app:v1", image))
	gone, err := remote.Head(s.ref("app:v0"), s.options()...)
	must(t, err)
	must(t, remote.Delete(s.ref("app@"+gone.Digest.String()), s.options()...))
	s.want(404, "GET", "/v2/app/manifests/v0", nil)
	_, err = s.admin.RotateCA(t.Context(), &pb.RotateCARequest{})
	must(t, err)
	s.until("the rotation ends", func() error {
		r, err := s.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err == nil && (r.GetStatus().GetRotation().GetPhase() != "idle" || r.GetStatus().GetRotation().GetNumber() != 1) {
			err = errText(r.GetStatus().GetRotation().String())
		}
		return err
	})
	s.meet()
	must(t, s.pull("app:v1", image))
	must(t, os.Remove(filler))
	// What the push that did not fit has left is freed, too.
	if r := s.collect(&pb.CollectGarbageRequest{MinAge: never}); r.GetUploads() < 1 || r.GetBytes() < 16<<20 {
		t.Errorf("collected %v", r)
	}
	s.until("pushes go on", func() error {
		small, err := random.Image(1000, 1)
		if err != nil {
			return err
		}
		return remote.Write(s.ref("app:v2"), small, s.options()...)
	})
}

type errText string

func (e errText) Error() string { return string(e) }

// A mistake in the registry's parameters ends the start with the path of the key.
func TestWrongConfiguration(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.end()
		for section, path := range map[string]string{
			"storage: {delte: {enabled: true}}":                     "registry.storage.delte",
			"http: {addr: ':5000'}":                                 "registry.http.addr",
			"storage: {maintenance: {uploadpurging: often}}":        "registry.storage.maintenance.uploadpurging",
			"storage: {filesystem: {}, s3: {region: x, bucket: y}}": "registry.storage",
			"auth: {htpasswd: {realm: x, path: /x}}":                "registry.auth",
		} {
			cfg := s.cfg
			cfg.Registry.Section = []byte(section)
			ctx, cancel := context.WithTimeout(t.Context(), patience) // one that starts would run for ever
			err := server.Run(ctx, cfg)
			cancel()
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: error %v, want one about %s", section, err, path)
			}
		}
		s.cfg.Registry.Section = []byte("storage: {delete: {enabled: false}}")
		s.start()
		image := s.push("app:v1", 1000, 1)
		digest, err := image.Digest()
		must(t, err)
		s.want(405, "DELETE", "/v2/app/manifests/"+digest.String(), nil)
	})
}

// The operator's headers reach clients, also those that only the operator may send.
func TestHeadersOfTheOperator(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.end()
		s.cfg.Registry.Section = []byte("http: {headers: {access-control-allow-origin: ['https://ui.test'], Strict-Transport-Security: [max-age=60], X-Mine: [a, b]}, relativeurls: true}")
		s.start()
		resp := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil)
		for name, want := range map[string]string{"Access-Control-Allow-Origin": "https://ui.test", "Strict-Transport-Security": "max-age=60", "X-Mine": "a b"} {
			if got := strings.Join(resp.Header.Values(name), " "); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if at := resp.Header.Get("Location"); !strings.HasPrefix(at, "/v2/app/blobs/uploads/") {
			t.Errorf("the upload goes on at %s, which is not relative", at)
		}
	})
}
