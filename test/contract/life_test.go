package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// answer is one that comes later.
type answer struct {
	resp *http.Response
	text string
	err  error
}

// later makes a request in the background.
func (s *site) later(method, path string, body io.Reader, header ...string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		resp, text, err := s.try(method, path, body, header...)
		c <- answer{resp, text, err}
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

// answered waits for an answer, which must have this status.
func (s *site) answered(c <-chan answer, status int) *http.Response {
	s.t.Helper()
	a := <-c
	must(s.t, a.err)
	if a.resp.StatusCode != status {
		s.t.Fatalf("answered with %s, want %d: %.300s", a.resp.Status, status, a.text)
	}
	return a.resp
}

// A pause lets requests wait, and survives the server's restart; so does a stop,
// which refuses at once. An upload that both came upon goes on.
func TestPauseAndStop(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 100_000, 2)
		content, digest := blob(1 << 20)
		at := s.chunk(s.begin("app"), content, 0, 1<<19)

		s.must("pause", "")
		waiting := s.later(http.MethodGet, "/v2/app/tags/list", nil)
		s.held(1)
		s.must("unpause", "")
		s.answered(waiting, http.StatusOK)
		at = s.chunk(at, content, 1<<19, 1<<20)

		s.must("pause", "")
		s.end()
		s.start()
		waiting = s.later(http.MethodGet, "/v2/app/tags/list", nil)
		s.held(1)
		s.must("unpause", "")
		s.answered(waiting, http.StatusOK)
		must(t, s.pull("app:v1", image))

		s.must("stop", "")
		s.stopped()
		began := time.Now()
		resp, text := s.do(http.MethodGet, "/v2/", nil) // TLS goes on: hosts prove the certificate
		if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "stopped") {
			t.Errorf("while it is stopped: %s %s", resp.Status, text)
		}
		if took := time.Since(began); took >= 30*time.Second { // what a pause would take
			t.Errorf("refused after %v", took)
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
		before, containers := s.registry().GetReplicas(), s.containersOf()
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
		s.until("Docker has other containers", func() error { return s.others(containers) })
		at = s.chunk(at, content, 1<<20, 2<<20)
		s.want(http.StatusCreated, http.MethodPut, finish(at, digest), nil)
		must(t, s.pull("app:v1", image))
	})
}

// others is nil when Docker has all replicas and none of those.
func (s *site) others(gone []string) error {
	now := s.containersOf()
	if len(now) != s.cfg.Replicas || slices.ContainsFunc(now, func(id string) bool { return slices.Contains(gone, id) }) {
		return fmt.Errorf("containers %q, before %q", now, gone)
	}
	return nil
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
	each(t, collects)
	t.Run("replicas remember", func(t *testing.T) {
		each(t, collects, func(_ *server.InitConfig, cfg *server.Config) {
			cfg.Registry.Section = []byte(readsByReplicas + "\nstorage: {cache: {blobdescriptor: inmemory}}")
		})
	})
}

func collects(t *testing.T, s *site) {
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
}

// A push whose layers came before a collection ends after it.
func TestCollectDuringPush(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.push("app:v0", 1000, 1) // a repository without images is not swept
		image, err := random.Image(50_000, 2)
		must(t, err)
		layers, err := image.Layers()
		must(t, err)
		config, err := partial.ConfigLayer(image)
		must(t, err)
		repo := s.ref("app:v1").Context()
		for _, layer := range append(layers, config) {
			must(t, remote.WriteLayer(repo, layer, s.options()...))
		}
		if r := s.collect(&pb.CollectGarbageRequest{}); r.GetBlobs() != 0 {
			t.Errorf("collected %v", r)
		}
		manifest, err := image.RawManifest()
		must(t, err)
		mediaType, err := image.MediaType()
		must(t, err)
		s.want(http.StatusCreated, http.MethodPut, "/v2/app/manifests/v1", bytes.NewReader(manifest), "Content-Type", string(mediaType))
		must(t, s.pull("app:v1", image))
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
// to the one that has least to do. The replicas' own logs say who got which.
func TestUploadAcrossReplicas(t *testing.T) {
	s := open(t, "docker", func(_ *server.InitConfig, cfg *server.Config) {
		cfg.Registry.Section = []byte("log: {accesslog: {disabled: false}}") // which has them answer reads, too
	})
	content, digest := blob(1 << 20)
	at := s.begin("app")
	const chunks = 16
	for i := range chunks {
		at = s.chunk(at, content, i<<16, (i+1)<<16)
	}
	s.want(http.StatusCreated, http.MethodPut, finish(at, digest), nil)
	_, got := s.do(http.MethodGet, "/v2/app/blobs/"+digest, nil)
	if !bytes.Equal([]byte(got), content) {
		t.Error("the blob is not what was uploaded")
	}
	s.until("the replicas' logs are written", func() error {
		took, sum := map[string]int{}, 0
		for _, replica := range s.containers() {
			out, err := exec.Command("docker", "logs", replica).Output()
			must(t, err)
			took[replica] = strings.Count(string(out), `"PATCH /v2/app/blobs/uploads/`)
			sum += took[replica]
		}
		if sum != chunks {
			return fmt.Errorf("%v of %d chunks", took, chunks)
		}
		t.Logf("chunks by replica: %v", took)
		for replica, n := range took {
			if n == 0 || len(took) != 2 {
				t.Errorf("%s took %d of %d chunks", replica, n, chunks)
			}
		}
		return nil
	})
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
