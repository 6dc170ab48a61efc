package contract

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/trustcast/trustcast/test/images"
)

// push makes a random image and pushes it.
func (s *site) push(what string, size int64, layers int64) v1.Image {
	s.t.Helper()
	image, err := random.Image(size, layers)
	must(s.t, err)
	must(s.t, remote.Write(s.ref(what), image, s.options()...))
	return image
}

// pull pulls every layer of an image, and fails unless it is want.
func (s *site) pull(what string, want v1.Image) error {
	got, err := remote.Image(s.ref(what), s.options()...)
	if err != nil {
		return err
	}
	gotDigest, err := got.Digest()
	if err != nil {
		return err
	}
	wantDigest, err := want.Digest()
	if err != nil {
		return err
	}
	if gotDigest != wantDigest {
		return fmt.Errorf("%s is %s, pushed was %s", what, gotDigest, wantDigest)
	}
	return images.Whole(got)
}

func TestPushAndPull(t *testing.T) {
	eachWay(t, func(t *testing.T, s *site) {
		image := s.push("team/app:v1", 300_000, 3)
		must(t, s.pull("team/app:v1", image))
		index, err := random.Index(10_000, 2, 3)
		must(t, err)
		must(t, remote.WriteIndex(s.ref("team/multi:v1"), index, s.options()...))
		s.same("team/multi:v1", index)
		manifest, err := index.IndexManifest()
		must(t, err)
		for _, child := range manifest.Manifests {
			want, err := index.Image(child.Digest)
			must(t, err)
			must(t, s.pull("team/multi@"+child.Digest.String(), want))
		}
		// The negative control: another image under this name is noticed.
		if err := s.pull("team/app:v1", s.push("team/app:v2", 1000, 1)); err == nil || !strings.Contains(err.Error(), "pushed was") {
			t.Errorf("the wrong image for the right one: %v", err)
		}
	})
}

// blob is some random bytes and their digest.
func blob(size int) (content []byte, digest string) {
	content = make([]byte, size)
	_, _ = rand.Read(content) // it never fails
	sum := sha256.Sum256(content)
	return content, "sha256:" + hex.EncodeToString(sum[:])
}

// begin begins an upload and returns where it goes on.
func (s *site) begin(repo string) string {
	s.t.Helper()
	return s.onward(s.want(http.StatusAccepted, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil))
}

// onward is where an upload goes on, which must be at the registry's own name.
func (s *site) onward(resp *http.Response) string {
	s.t.Helper()
	location, err := resp.Location()
	must(s.t, err)
	if location.Scheme != "https" || location.Host != s.domain {
		s.t.Fatalf("the upload goes on at %s", location)
	}
	return location.String()
}

// chunk sends a part of an upload.
func (s *site) chunk(at string, content []byte, from, to int) string {
	s.t.Helper()
	return s.onward(s.want(http.StatusAccepted, http.MethodPatch, at, bytes.NewReader(content[from:to]),
		"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", from, to-1)))
}

// finish ends an upload.
func finish(at, digest string) string {
	separator := "?"
	if strings.Contains(at, "?") {
		separator = "&"
	}
	return at + separator + "digest=" + url.QueryEscape(digest)
}

func TestChunkedUpload(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		content, digest := blob(3 << 20)
		at := s.begin("app")
		at = s.chunk(at, content, 0, 1<<20)
		at = s.chunk(at, content, 1<<20, 2<<20)
		// Out of order: refused, and the upload goes on where it was.
		if resp, _ := s.do(http.MethodPatch, at, bytes.NewReader(content[:10]), "Content-Type", "application/octet-stream", "Content-Range", "0-9"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("a chunk out of order: %s", resp.Status)
		}
		resp := s.want(http.StatusNoContent, http.MethodGet, at, nil)
		if got := resp.Header.Get("Range"); got != "0-2097151" {
			t.Errorf("the upload stands at %s", got)
		}
		s.want(http.StatusCreated, http.MethodPut, finish(at, digest), bytes.NewReader(content[2<<20:]), "Content-Type", "application/octet-stream")
		_, got := s.do(http.MethodGet, "/v2/app/blobs/"+digest, nil)
		if got != string(content) {
			t.Error("the blob is not what was uploaded")
		}

		// A wrong digest is refused, and nothing is there under it.
		_, wrong := blob(10)
		at = s.chunk(s.begin("app"), content, 0, 1000)
		s.want(http.StatusBadRequest, http.MethodPut, finish(at, wrong), nil)
		s.want(http.StatusNotFound, http.MethodHead, "/v2/app/blobs/"+wrong, nil)
	})
}

func TestRanges(t *testing.T) {
	eachWay(t, func(t *testing.T, s *site) {
		content, digest := blob(100_000)
		s.upload("app", content, digest)
		resp, part := s.do(http.MethodGet, "/v2/app/blobs/"+digest, nil, "Range", "bytes=1000-1999")
		if resp.StatusCode != http.StatusPartialContent || part != string(content[1000:2000]) {
			t.Errorf("%s, %d bytes", resp.Status, len(part))
		}
		if got := resp.Header.Get("Content-Range"); got != "bytes 1000-1999/100000" {
			t.Errorf("Content-Range %q", got)
		}
		head := s.want(http.StatusOK, http.MethodHead, "/v2/app/blobs/"+digest, nil)
		if head.ContentLength != 100_000 || head.Header.Get("Docker-Content-Digest") != digest {
			t.Errorf("HEAD: %d bytes, %s", head.ContentLength, head.Header.Get("Docker-Content-Digest"))
		}
	})
}

func TestMount(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		content, digest := blob(1000)
		s.upload("from", content, digest)
		s.want(http.StatusNotFound, http.MethodHead, "/v2/to/blobs/"+digest, nil)
		s.want(http.StatusCreated, http.MethodPost, "/v2/to/blobs/uploads/?mount="+digest+"&from=from", nil)
		if _, got := s.do(http.MethodGet, "/v2/to/blobs/"+digest, nil); got != string(content) {
			t.Error("what was mounted is not what was uploaded")
		}
		// What is not there begins an upload.
		_, missing := blob(10)
		s.want(http.StatusAccepted, http.MethodPost, "/v2/to/blobs/uploads/?mount="+missing+"&from=from", nil)
	})
}

func TestDelete(t *testing.T) {
	eachWay(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 1000, 1)
		kept := s.push("app:v2", 1000, 1)
		digest, err := image.Digest()
		must(t, err)
		s.want(http.StatusOK, http.MethodGet, "/v2/app/manifests/"+digest.String(), nil)
		must(t, remote.Delete(s.ref("app@"+digest.String()), s.options()...))
		s.want(http.StatusNotFound, http.MethodGet, "/v2/app/manifests/"+digest.String(), nil)
		s.want(http.StatusNotFound, http.MethodGet, "/v2/app/manifests/v1", nil)
		must(t, s.pull("app:v2", kept))
	})
}

func TestCatalogAndPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		want := []string{"a", "b", "c/d", "e"}
		for _, repo := range want {
			s.push(repo+":v1", 100, 1)
		}
		for _, tag := range []string{"v2", "v3", "v4", "v5"} {
			s.push("a:"+tag, 100, 1)
		}
		if got := s.pages("/v2/_catalog", "repositories", 3); !slices.Equal(got, want) {
			t.Errorf("repositories %q", got)
		}
		if got := s.pages("/v2/a/tags/list", "tags", 2); !slices.Equal(got, []string{"v1", "v2", "v3", "v4", "v5"}) {
			t.Errorf("tags %q", got)
		}
	})
}

// pages follows the links of a list of n items a page.
func (s *site) pages(path, key string, n int) (all []string) {
	s.t.Helper()
	path = fmt.Sprintf("%s?n=%d", path, n)
	pages := 0
	for ; path != ""; pages++ {
		resp, text := s.do(http.MethodGet, path, nil)
		if resp.StatusCode != http.StatusOK || pages > 10 {
			s.t.Fatalf("page %d, %s: %s", pages, path, resp.Status)
		}
		var page map[string]any
		must(s.t, json.Unmarshal([]byte(text), &page))
		items, _ := page[key].([]any) // null on an empty page
		if len(items) > n {
			s.t.Errorf("%s: %d items on a page of %d", path, len(items), n)
		}
		for _, item := range items {
			all = append(all, fmt.Sprint(item))
		}
		link, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		path = link
	}
	if pages < 2 {
		s.t.Errorf("%s: one page", key)
	}
	return all
}
