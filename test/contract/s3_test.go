package contract

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

const (
	accessKey = "the-access-key"
	secretKey = "the-secret-key"
)

// bucket is one of an S3 server in this process.
type bucket struct {
	t       *testing.T
	objects *s3mem.Backend
	url     string
	// strange counts requests that are not signed with the access key.
	strange atomic.Int32
}

const (
	bucketName = "images"
	// inBucket is where the registry keeps its data there.
	inBucket = "team/a"
)

func newBucket(n network) *bucket {
	n.t.Helper()
	b := &bucket{t: n.t, objects: s3mem.New()}
	must(n.t, b.objects.CreateBucket(bucketName))
	s3 := gofakes3.New(b.objects, gofakes3.WithIntegrityCheck(true)).Server()
	b.url = n.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed := r.Header.Get("Authorization") + r.URL.Query().Get("X-Amz-Credential")
		if !strings.Contains(signed, accessKey+"/") {
			b.strange.Add(1)
		}
		s3.ServeHTTP(w, r)
	})).URL
	return b
}

// section is what an operator writes to keep images there. The driver has two names.
func (b *bucket) section(driver string, redirect bool) string {
	return fmt.Sprintf(`storage:
  %s: {region: eu-west-1, regionendpoint: '%s', forcepathstyle: true, secure: false, bucket: %s, rootdirectory: /%s, accesskey: %s, secretkey: %s}
  redirect: {disable: %t}
`, driver, b.url, bucketName, inBucket, accessKey, secretKey, !redirect)
}

// blobs are those in the bucket, by digest.
func (b *bucket) blobs() (digests []string) {
	b.t.Helper()
	list, err := b.objects.ListBucket(bucketName, nil, gofakes3.ListBucketPage{})
	must(b.t, err)
	for _, object := range list.Contents {
		if rest, is := strings.CutPrefix(object.Key, inBucket+"/docker/registry/v2/blobs/sha256/"); is {
			digests = append(digests, "sha256:"+strings.Split(rest, "/")[1])
		}
	}
	slices.Sort(digests)
	return digests
}

// blobsOf are all that an image consists of.
func blobsOf(t *testing.T, images ...v1.Image) (digests []string) {
	t.Helper()
	for _, image := range images {
		digest, err := image.Digest()
		must(t, err)
		config, err := image.ConfigName()
		must(t, err)
		layers, err := image.Layers()
		must(t, err)
		digests = append(digests, digest.String(), config.String())
		for _, layer := range layers {
			digest, err := layer.Digest()
			must(t, err)
			digests = append(digests, digest.String())
		}
	}
	slices.Sort(digests)
	return digests
}

// Images are in S3 and not on the disk, over restarts; what is deleted and collected
// is gone from there.
func TestStorageInS3(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			n := newNetwork(t, engine)
			b := newBucket(n)
			s := open(t, engine, n.with(b.section("s3", true)))
			kept, gone := s.push("app:v1", 6<<20, 1), s.push("team/app:v2", 50_000, 2) // of more than one part, and of one
			if got, want := b.blobs(), blobsOf(t, kept, gone); !slices.Equal(got, want) {
				t.Errorf("the bucket has\n%q, pushed were\n%q", got, want)
			}
			s.nothingOnDisk()
			// Clients are sent to S3 for layers, and get there what was pushed.
			if at := s.redirect(kept); !strings.HasPrefix(at, b.url+"/"+bucketName+"/"+inBucket+"/") {
				t.Errorf("a layer is answered with %q, want a place in the bucket", at)
			}
			s.layers("app", kept)

			s.end()
			s.cfg.Registry.Section = []byte(b.section("s3aws", false))
			s.start()
			must(t, s.pull("app:v1", kept))
			if at := s.redirect(kept); at != "" {
				t.Errorf("with redirect.disable a layer is at %q", at)
			}

			digest, err := gone.Digest()
			must(t, err)
			must(t, remote.Delete(s.ref("team/app@"+digest.String()), s.options()...))
			if r := s.collect(&pb.CollectGarbageRequest{MinAge: never}); r.GetBlobs() != 4 || r.GetBytes() < 100_000 {
				t.Errorf("collected %v, want the 4 blobs of the deleted image", r)
			}
			if got, want := b.blobs(), blobsOf(t, kept); !slices.Equal(got, want) {
				t.Errorf("after the collection the bucket has\n%q, want\n%q", got, want)
			}
			must(t, s.pull("app:v1", kept))
			must(t, remote.Write(s.ref("team/app:v2"), gone, s.options()...))
			must(t, s.pull("team/app:v2", gone))
			s.nothingOnDisk()
			s.keepsSecret(accessKey, secretKey)
			if n := b.strange.Load(); n > 0 {
				t.Errorf("%d requests were not signed with the access key", n)
			}
		})
	}
}

// nothingOnDisk: no file of the registry's is in the data directory.
func (s *site) nothingOnDisk() {
	s.t.Helper()
	dir, err := filepath.EvalSymlinks(s.cfg.DataDir)
	must(s.t, err)
	err = filepath.WalkDir(filepath.Join(dir, "docker"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			s.t.Errorf("%s is on the disk", path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
}

// onDisk says whether a blob is in the data directory.
func (s *site) onDisk(digest string) bool {
	_, hex, _ := strings.Cut(digest, ":")
	_, err := os.Stat(filepath.Join(s.cfg.DataDir, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data"))
	return err == nil
}

// redirect is where the registry sends a client for an image's first layer; empty: it
// sends the layer itself.
func (s *site) redirect(image v1.Image) string {
	s.t.Helper()
	layers, err := image.Layers()
	must(s.t, err)
	digest, err := layers[0].Digest()
	must(s.t, err)
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer func() { s.client.CheckRedirect = nil }()
	resp, _ := s.do(http.MethodGet, "/v2/app/blobs/"+digest.String(), nil)
	return resp.Header.Get("Location")
}

// layers fetches an image's layers as Docker does, which goes where it is sent. (The
// library that pulls elsewhere here goes to no private address.)
func (s *site) layers(repo string, image v1.Image) {
	s.t.Helper()
	layers, err := image.Layers()
	must(s.t, err)
	for _, layer := range layers {
		digest, err := layer.Digest()
		must(s.t, err)
		if _, content := s.do(http.MethodGet, "/v2/"+repo+"/blobs/"+digest.String(), nil); fmt.Sprintf("%x", sha256.Sum256([]byte(content))) != digest.Hex {
			s.t.Errorf("what comes for %s is something else (%d bytes)", digest, len(content))
		}
	}
}

// A backup cannot have images that are in S3, and says so; the rest it has.
func TestBackupWithImagesInS3(t *testing.T) {
	n := newNetwork(t, "embedded")
	b := newBucket(n)
	s := open(t, "embedded", n.with(b.section("s3", true)))
	image := s.push("app:v1", 1000, 1)
	if _, err := s.backup(false); err == nil || !strings.Contains(err.Error(), "the images are in s3") || !strings.Contains(err.Error(), "--without-images") {
		t.Errorf("a backup with images: %v", err)
	}
	tar, err := s.backup(true)
	must(t, err)

	// Restored elsewhere, with the same parameters, the images are there again.
	fresh := open(t, "embedded", n.with(b.section("s3", true)))
	s.end()
	fresh.end()
	fresh.cfg.Registry.Section = []byte(b.section("s3", false))
	_, err = server.Restore(t.Context(), server.RestoreConfig{DataDir: fresh.cfg.DataDir, Force: true}, bytes.NewReader(tar))
	must(t, err)
	fresh.domain, fresh.cfg.RegistryListen, fresh.cfg.Listen = s.domain, s.cfg.RegistryListen, s.cfg.Listen
	fresh.start()
	fresh.meet()
	must(t, fresh.pull("app:v1", image))
}

// backup has the server make one.
func (s *site) backup(withoutImages bool) (tar []byte, err error) {
	stream, err := s.admin.Backup(s.t.Context(), &pb.BackupRequest{WithoutImages: withoutImages})
	for err == nil {
		var r *pb.BackupResponse
		if r, err = stream.Recv(); err == nil {
			tar = append(tar, r.GetChunk()...)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return tar, err
}
