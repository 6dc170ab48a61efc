package registry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/trustcast/trustcast/test/images"
)

// shelf is a registry with images in it, for collections.
type shelf struct {
	t    *testing.T
	root string
	e    opened
	srv  *httptest.Server
	via  *http.Transport
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t: t, root: t.TempDir(), via: &http.Transport{}}
	s.e = newEmbedded(t, EmbeddedConfig{Root: s.root})
	s.srv = httptest.NewServer(s.e)
	t.Cleanup(func() { s.via.CloseIdleConnections(); s.srv.Close() })
	return s
}

func (s *shelf) ref(what string) name.Reference {
	s.t.Helper()
	ref, err := name.ParseReference(s.srv.Listener.Addr().String()+"/"+what, name.Insecure)
	must(s.t, err)
	return ref
}

func (s *shelf) push(what string) v1.Image {
	s.t.Helper()
	image, err := random.Image(10_000, 3)
	must(s.t, err)
	must(s.t, remote.Write(s.ref(what), image, remote.WithTransport(s.via)))
	return image
}

func (s *shelf) digest(image interface{ Digest() (v1.Hash, error) }) string {
	s.t.Helper()
	d, err := image.Digest()
	must(s.t, err)
	return d.String()
}

func (s *shelf) remove(repo string, image v1.Image) {
	s.t.Helper()
	must(s.t, remote.Delete(s.ref(repo+"@"+s.digest(image)), remote.WithTransport(s.via)))
}

// whole pulls an image with all its layers, as a client would.
func (s *shelf) whole(what string) error {
	image, err := remote.Image(s.ref(what), remote.WithTransport(s.via))
	if err != nil {
		return err
	}
	return images.Whole(image)
}

// mount has a repository take a blob over from another one, as a push does.
func (s *shelf) mount(d, from, to string) {
	s.t.Helper()
	target := "/v2/" + to + "/blobs/uploads/?mount=" + d + "&from=" + from
	if resp := answer(s.t, s.e, http.MethodPost, target, nil); resp.StatusCode != http.StatusCreated {
		s.t.Fatalf("mount: %s", resp.Status)
	}
}

// age makes everything that is there old.
func (s *shelf) age() {
	s.t.Helper()
	then := time.Now().Add(-2 * collectYoungest)
	must(s.t, filepath.WalkDir(filepath.Join(s.root, "docker"), func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(p, then, then)
	}))
}

// blobs counts those on the disk.
func (s *shelf) blobs() int {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.root, "docker/registry/v2/blobs/sha256/*/*/data"))
	must(s.t, err)
	return len(found)
}

func (s *shelf) collect(opts CollectOptions) Collected {
	s.t.Helper()
	d, err := Driver(s.e.cfg.Parameters, s.root)(s.t.Context())
	must(s.t, err)
	got, err := collect(s.t.Context(), d, opts, time.Now(), quiet)
	must(s.t, err)
	return got
}

// An image of these tests has three layers, a config and a manifest.
const imageBlobs = 5

func TestCollect(t *testing.T) {
	s := newShelf(t)
	if got := s.collect(CollectOptions{}); got != (Collected{}) {
		t.Errorf("of nothing: %+v", got)
	}
	s.push("app:kept")
	gone := s.push("app:gone")
	s.remove("app", gone)
	s.age()

	dry := s.collect(CollectOptions{DryRun: true})
	if s.blobs() != 2*imageBlobs {
		t.Fatal("a dry run removed something")
	}
	got := s.collect(CollectOptions{})
	if got != dry || got.Blobs != imageBlobs || got.Bytes < 30_000 || got.Spared != 0 {
		t.Errorf("collected %+v, the dry run said %+v", got, dry)
	}
	if s.blobs() != imageBlobs {
		t.Errorf("%d blobs are left, want %d", s.blobs(), imageBlobs)
	}
	must(t, s.whole("app:kept"))
	if err := s.whole("app@" + s.digest(gone)); err == nil {
		t.Error("a deleted image can be pulled")
	}
	if again := s.collect(CollectOptions{}); again != (Collected{}) {
		t.Errorf("a second collection: %+v", again)
	}
}

// What came lately stays: the manifest that needs it may be on its way.
func TestCollectSparesTheYoung(t *testing.T) {
	s := newShelf(t)
	image := s.push("app:v1")
	s.remove("app", image)
	if got := s.collect(CollectOptions{}); got.Blobs != 0 || got.Spared != imageBlobs || s.blobs() != imageBlobs {
		t.Errorf("collected %+v, %d blobs are left", got, s.blobs())
	}
	if got := s.collect(CollectOptions{Youngest: time.Nanosecond}); got.Blobs != imageBlobs || got.Spared != 0 {
		t.Errorf("with nothing too young: %+v", got)
	}
}

// A push finds layers of a deleted image there and does not bring them again: the
// young link protects the old blob.
func TestCollectSparesWhatAPushFound(t *testing.T) {
	s := newShelf(t)
	image := s.push("app:v1")
	s.remove("app", image)
	s.age()
	layers, err := image.Layers()
	must(t, err)
	d, err := layers[0].Digest()
	must(t, err)
	s.mount(d.String(), "app", "other")
	if got := s.collect(CollectOptions{}); got.Spared != 1 || got.Blobs != imageBlobs-1 {
		t.Errorf("collected %+v", got)
	}
	if resp := answer(t, s.e, http.MethodHead, "/v2/other/blobs/"+d.String(), nil); resp.StatusCode != http.StatusOK {
		t.Errorf("the mounted layer: %s", resp.Status)
	}
}

// The push may be to a repository that has images: its link stays there, though none
// of them names the layer.
func TestCollectSparesYoungLinks(t *testing.T) {
	s := newShelf(t)
	s.push("app:kept")
	image := s.push("lib:v1")
	s.age()
	layers, err := image.Layers()
	must(t, err)
	d, err := layers[0].Digest()
	must(t, err)
	s.mount(d.String(), "lib", "app")
	s.collect(CollectOptions{})
	if resp := answer(t, s.e, http.MethodHead, "/v2/app/blobs/"+d.String(), nil); resp.StatusCode != http.StatusOK {
		t.Errorf("the mounted layer: %s", resp.Status)
	}
	s.age()
	s.collect(CollectOptions{})
	if resp := answer(t, s.e, http.MethodHead, "/v2/app/blobs/"+d.String(), nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the layer that no push came for: %s", resp.Status)
	}
	must(t, s.whole("lib:v1"))
}

func TestCollectUntagged(t *testing.T) {
	s := newShelf(t)
	old := s.push("app:v1")
	s.push("app:v1") // old has no tag now
	index, err := random.Index(1000, 1, 2)
	must(t, err)
	must(t, remote.WriteIndex(s.ref("app:multi"), index, remote.WithTransport(s.via)))
	s.age()
	young, err := random.Image(1000, 1)
	must(t, err)
	must(t, remote.Write(s.ref("app@"+s.digest(young)), young, remote.WithTransport(s.via)))
	before := s.blobs()

	if got := s.collect(CollectOptions{}); got.Blobs != 0 || s.blobs() != before {
		t.Errorf("tags do not count unless they are asked for: %+v", got)
	}
	dry := s.collect(CollectOptions{Untagged: true, DryRun: true})
	if s.blobs() != before {
		t.Fatal("a dry run removed something")
	}
	got := s.collect(CollectOptions{Untagged: true})
	if got != dry || got.Manifests != 1 || got.Blobs != imageBlobs {
		t.Errorf("collected %+v, the dry run said %+v", got, dry)
	}
	must(t, s.whole("app:v1"))
	must(t, s.whole("app@"+s.digest(young)))
	if err := s.whole("app@" + s.digest(old)); err == nil {
		t.Error("the untagged image can be pulled")
	}
	manifest, err := index.IndexManifest()
	must(t, err)
	for _, child := range manifest.Manifests { // no tag names them, but an index that has one does
		must(t, s.whole("app@"+child.Digest.String()))
	}
}

// Uploads that nobody goes on with are freed; one that somebody went on with lately
// stays, whenever it began.
func TestCollectUploads(t *testing.T) {
	s := newShelf(t)
	s.push("app:v1")
	idle, busy := upload(t, s.e), upload(t, s.e)
	for _, u := range []*url.URL{idle, busy} {
		if resp := answer(t, s.e, http.MethodPatch, u.RequestURI(), strings.NewReader("part of a blob")); resp.StatusCode != http.StatusAccepted {
			t.Fatal(resp.Status)
		}
	}
	s.age()
	data := filepath.Join(s.root, "docker/registry/v2/repositories/app/_uploads", path.Base(busy.Path), "data")
	must(t, os.Chtimes(data, time.Now(), time.Now()))
	dry := s.collect(CollectOptions{DryRun: true})
	got := s.collect(CollectOptions{})
	if got != dry || got.Uploads != 1 || got.Bytes < 14 {
		t.Errorf("collected %+v, the dry run said %+v", got, dry)
	}
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
	must(t, s.whole("app:v1"))
}

// cutOff is a storage that breaks after some removals.
type cutOff struct {
	driver.StorageDriver
	left int
}

var errCut = errors.New("cut off")

func (c *cutOff) Delete(ctx context.Context, p string) error {
	if c.left == 0 {
		return errCut
	}
	c.left--
	return c.StorageDriver.Delete(ctx, p)
}

// Cut off after each removal, a collection loses nothing that an image needs, and
// the next one does the rest.
func TestCollectCutOff(t *testing.T) {
	before := newShelf(t)
	before.push("app:kept")
	before.push("app:v1")
	before.push("app:v1")
	before.remove("other", before.push("other:v1"))
	for cut := 0; ; cut++ {
		s := newShelf(t)
		must(t, os.CopyFS(s.root, os.DirFS(before.root)))
		s.age()
		d, err := Driver(s.e.cfg.Parameters, s.root)(t.Context())
		must(t, err)
		_, err = collect(t.Context(), &cutOff{d, cut}, CollectOptions{Untagged: true}, time.Now(), quiet)
		must(t, s.whole("app:kept"))
		must(t, s.whole("app:v1"))
		s.collect(CollectOptions{Untagged: true})
		if n := s.blobs(); n != 2*imageBlobs {
			t.Errorf("cut off after %d removals, then repeated: %d blobs are left, want %d", cut, n, 2*imageBlobs)
		}
		must(t, s.whole("app:kept"))
		must(t, s.whole("app:v1"))
		if err == nil {
			if cut < 2*imageBlobs {
				t.Errorf("only %d removals", cut)
			}
			return
		}
		if !strings.Contains(err.Error(), errCut.Error()) { // distribution does not wrap
			t.Fatal(err)
		}
	}
}

// A registry that is stopped while images are collected stays stopped, though its
// replicas would be replaced.
func TestCollectStartsNothing(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	s.life.cfg.Cache = "inmemory"
	d := strings.Repeat("ab", 32)
	blob := filepath.Join(s.root, "docker/registry/v2/blobs/sha256/ab", d, "data")
	must(t, os.MkdirAll(filepath.Dir(blob), 0o700))
	must(t, os.MkdirAll(filepath.Join(s.root, "docker/registry/v2/repositories"), 0o700))
	must(t, os.WriteFile(blob, nil, 0o600))
	then := time.Now().Add(-2 * collectYoungest)
	must(t, os.Chtimes(blob, then, then))
	stopped := false
	got, err := s.life.Collect(t.Context(), CollectOptions{}, func(step string) {
		if strings.HasPrefix(step, "replicas that remember") {
			stopped = true
			must(t, s.life.Stop(t.Context(), quiet))
		}
	})
	if err != nil || got.Blobs != 1 || !stopped {
		t.Fatalf("%+v, %v, stopped %v", got, err, stopped)
	}
	s.isStopped("after the collection")
}

// The edge holds writes from before the first look until the last removal, and lets
// them go on also when it fails.
func TestCollectHoldsWrites(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	if _, err := s.life.Collect(t.Context(), CollectOptions{}, quiet); err != nil {
		t.Fatal(err)
	}
	said := strings.Join(s.front.said, ", ")
	if !strings.Contains(said, "hold writes, quiet, open") {
		t.Errorf("the front was told %s", said)
	}
	if _, err := s.life.Collect(t.Context(), CollectOptions{DryRun: true}, quiet); err != nil {
		t.Fatal(err)
	}
	if again := strings.Join(s.front.said, ", "); again != said {
		t.Errorf("a dry run told the front %s", again[len(said):])
	}
	release, err := s.life.KeepImages(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.life.KeepImages(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("two at a time: %v", err)
	}
	release()
}
