package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

// answer is one that comes later.
type answer struct {
	resp *http.Response
	err  error
}

// later makes a request in the background.
func (s *site) later(method, path string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		resp, _, err := s.try(method, path, nil)
		c <- answer{resp, err}
	}()
	return c
}

// held waits until so many requests wait at the gate.
func (s *site) held(n int32) {
	s.t.Helper()
	s.until("requests wait", func() error {
		if got := s.registry().GetHeld(); got != n {
			return fmt.Errorf("%d wait, want %d", got, n)
		}
		return nil
	})
}

func (s *site) answered(c <-chan answer, status int) {
	s.t.Helper()
	a := <-c
	must(s.t, a.err)
	if a.resp.StatusCode != status {
		s.t.Errorf("answered with %s, want %d", a.resp.Status, status)
	}
}

// A pause lets requests wait, cuts nothing that is in flight, and survives the
// server's restart; so does a stop, which refuses.
func TestPauseAndStop(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 100_000, 2)
		content, digest := blob(1 << 20)
		at := s.chunk(s.begin("app"), content, 0, 1<<19)

		s.must("pause", "")
		waiting := s.later(http.MethodGet, "/v2/app/tags/list")
		s.held(1)
		s.must("unpause", "")
		s.answered(waiting, http.StatusOK)
		at = s.chunk(at, content, 1<<19, 1<<20)

		s.must("pause", "")
		s.end()
		s.start()
		waiting = s.later(http.MethodGet, "/v2/app/tags/list")
		s.held(1)
		s.must("unpause", "")
		s.answered(waiting, http.StatusOK)
		must(t, s.pull("app:v1", image))

		s.must("stop", "")
		if r := s.registry(); r.GetState() != "stopped" || len(r.GetReplicas()) > 0 {
			t.Errorf("stopped: %v", r)
		}
		resp, text := s.do(http.MethodGet, "/v2/", nil) // TLS goes on: hosts prove the certificate
		if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "stopped") {
			t.Errorf("while it is stopped: %s %s", resp.Status, text)
		}
		s.end()
		s.start()
		s.want(http.StatusServiceUnavailable, http.MethodGet, "/v2/", nil)
		s.must("start", "")
		must(t, s.pull("app:v1", image))
		// The upload begun before all that ends now.
		s.want(http.StatusCreated, http.MethodPut, finish(at, digest), nil)
	})
}

// A restart replaces every replica, and an upload goes on at another one.
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 100_000, 2)
		content, digest := blob(2 << 20)
		at := s.chunk(s.begin("app"), content, 0, 1<<20)
		before := s.registry().GetReplicas()
		s.must("restart", "")
		after := s.registry().GetReplicas()
		if len(after) != len(before) {
			t.Fatalf("%d replicas, before %d", len(after), len(before))
		}
		for _, old := range before {
			for _, fresh := range after {
				if fresh.GetId() == old.GetId() {
					t.Errorf("%s was not replaced", old.GetId())
				}
			}
		}
		at = s.chunk(at, content, 1<<20, 2<<20)
		s.want(http.StatusCreated, http.MethodPut, finish(at, digest), nil)
		must(t, s.pull("app:v1", image))
	})
}

func TestUpgrade(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 100_000, 2)
		if s.engine == "embedded" {
			if _, err := s.change("upgrade", "registry:3"); err == nil || !strings.Contains(err.Error(), "runs no image") {
				t.Errorf("the embedded engine took an image: %v", err)
			}
			return
		}
		old, next := s.cfg.Image, images.RegistryNext(t)
		runs := func(image string) {
			t.Helper()
			r := s.registry()
			if r.GetImage() != image || len(r.GetReplicas()) != 2 {
				t.Errorf("image %s with %d replicas, want %s", r.GetImage(), len(r.GetReplicas()), image)
			}
			for _, replica := range r.GetReplicas() {
				if replica.GetImage() != image || replica.GetState() != "serving" {
					t.Errorf("replica %v, want one of %s", replica, image)
				}
			}
		}
		runs(old)
		s.must("upgrade", next)
		runs(next)
		must(t, s.pull("app:v1", image))
		s.end()
		s.cfg.Settings = []server.Setting{{Key: "registry-image", Value: old, Origin: "flag"}}
		s.start() // with the old image in its configuration
		runs(next)
		s.shows(next, "upgrade")
		if !strings.Contains(s.logs.String(), "the image of the last upgrade counts") {
			t.Error("nothing in the log says that the configured image does not count")
		}
		if kept, err := server.ReadKept(s.cfg.DataDir, old); err != nil || kept.Upgraded != next || kept.Engine != "docker" || kept.Volume == "" {
			t.Errorf("kept are %+v (%v), want an upgrade to %s", kept, err, next)
		}
		must(t, s.pull("app:v1", image))

		// One that never answers well, one that cannot start, one that is not there: back
		// by itself.
		for _, bad := range []string{images.Sick(t), images.Foreign(t), "trustcast-test/no-such-image:1"} {
			_, err := s.change("upgrade", bad)
			if err == nil || !strings.Contains(err.Error(), "serves with "+next+" as before") {
				t.Errorf("upgrade to %s: %v", bad, err)
			}
			runs(next)
			must(t, s.pull("app:v1", image))
		}
		s.must("upgrade", images.Debian28(t)) // an older release on the same data
		runs(images.Debian28(t))
		must(t, s.pull("app:v1", image))
		s.push("app:v28", 10_000, 1)
		s.must("upgrade", old)
		runs(old)
		s.shows(old, "flag")
		must(t, s.pull("app:v1", image))
	})
}

// shows wants this image and its origin in what the server counts.
func (s *site) shows(image, origin string) {
	s.t.Helper()
	r, err := s.admin.ShowConfig(s.t.Context(), &pb.ShowConfigRequest{})
	must(s.t, err)
	for _, shown := range r.GetSettings() {
		if shown.GetKey() == "registry-image" && (shown.GetValue() != image || shown.GetOrigin() != origin) {
			s.t.Errorf("%v is shown, want %s by %s", shown, image, origin)
		}
	}
}

// A collection frees what no image needs, and what came lately stays.
func TestCollect(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		kept, gone := s.push("app:v1", 50_000, 2), s.push("app:v2", 50_000, 2)
		digest, err := gone.Digest()
		must(t, err)
		must(t, remote.Delete(s.ref("app@"+digest.String()), s.options()...))
		if r := s.collect(&pb.CollectGarbageRequest{}); r.GetBlobs() != 0 || r.GetSpared() != 4 {
			t.Errorf("at once: %v", r)
		}
		dry := s.collect(&pb.CollectGarbageRequest{DryRun: true, MinAge: never})
		r := s.collect(&pb.CollectGarbageRequest{MinAge: never})
		if r.GetBlobs() != 4 || r.GetBytes() < 100_000 || r.GetBytes() != dry.GetBytes() {
			t.Errorf("%v, the dry run said %v", r, dry)
		}
		must(t, s.pull("app:v1", kept))
		// The same content comes again: no replica remembers that it was there.
		must(t, remote.Write(s.ref("app:v2"), gone, s.options()...))
		must(t, s.pull("app:v2", gone))
	})
}

// Replicas that are killed are replaced, and a request waits meanwhile.
func TestKilledReplicas(t *testing.T) {
	s := open(t, "docker")
	image := s.push("app:v1", 100_000, 2)
	for range 3 {
		kill, replicas := []string{"kill"}, s.registry().GetReplicas()
		for _, replica := range replicas {
			kill = append(kill, "trustcast-localhost-"+replica.GetId())
		}
		out, err := exec.Command("docker", kill...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		must(t, s.pull("app:v1", image))
		s.replaced(replicas)
	}
}

// An upload is begun at one replica and ended at another: each request of it goes
// to the one that has least to do.
func TestUploadAcrossReplicas(t *testing.T) {
	s := open(t, "docker")
	content, digest := blob(1 << 20)
	at := s.begin("app")
	for i := range 16 {
		at = s.chunk(at, content, i<<16, (i+1)<<16)
	}
	s.want(http.StatusCreated, http.MethodPut, finish(at, digest), nil)
	_, got := s.do(http.MethodGet, "/v2/app/blobs/"+digest, nil)
	if !bytes.Equal([]byte(got), content) {
		t.Error("the blob is not what was uploaded")
	}
}

// never: nothing is too young to go.
var never = durationpb.New(0)

func (s *site) collect(req *pb.CollectGarbageRequest) *pb.CollectGarbageResponse {
	s.t.Helper()
	stream, err := s.admin.CollectGarbage(s.t.Context(), req)
	must(s.t, err)
	var last *pb.CollectGarbageResponse
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last
		}
		must(s.t, err)
		last = r
	}
}
