package direct_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/registry/direct"
	"github.com/trustcast/trustcast/server/registry/parameters"
)

// The types that manifests have.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
)

var (
	repositories = []string{"app", "team/app", "team/app.two_three"}
	tags         = []string{"latest", "1.0", "old_one"}
)

// history is a registry to which things happen, and the direct reads of its files.
type history struct {
	engine http.Handler
	reads  *direct.Reads
	// blobs and manifests that were pushed somewhere, by digest.
	blobs, manifests []string
	// answered counts what was not left to the engine, by what was asked, and by status;
	// asked is the same of the engine's answers.
	answered map[string]int
	asked    map[string]int
}

// TestAnswersAsTheEngine: whatever happens to a registry, a direct answer is that of
// the engine at the same moment, in status, each header and each byte.
func TestAnswersAsTheEngine(t *testing.T) {
	for name, text := range map[string]string{"default": "", "headers and cache": "http: {headers: {X-Test: [a, b]}}\nstorage: {cache: {blobdescriptor: inmemory}}"} {
		t.Run(name, func(t *testing.T) {
			answered, asked := map[string]int{}, map[string]int{}
			rapid.Check(t, func(rt *rapid.T) {
				h := newHistory(t, text)
				h.answered, h.asked = answered, asked
				defer func() { must(t, h.reads.Close()) }()
				rt.Repeat(map[string]func(*rapid.T){
					"push a blob":     h.pushBlob,
					"push a manifest": h.pushManifest,
					"delete":          h.remove,
					"":                h.read, // after each of the others
				})
			})
			for _, what := range slices.Sorted(maps.Keys(answered)) {
				t.Logf("%-9s %5d of %5d answered directly, and as the engine", what, answered[what], asked[what])
			}
			for _, what := range []string{"/v2/", "tag", "digest", "blob", "range", "unchanged", "304", "412", "416", "multipart"} {
				if answered[what] == 0 {
					t.Errorf("%s: nothing was compared", what)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHistory(t *testing.T, text string) *history {
	root := t.TempDir()
	p, err := parameters.Parse([]byte(text), nil, parameters.Options{})
	must(t, err)
	e, err := registry.NewEmbedded(t.Context(), registry.EmbeddedConfig{Root: root, Parameters: p})
	must(t, err)
	replica, err := e.Open(t.Context(), "")
	must(t, err)
	return &history{engine: replica.Handler, reads: direct.New(root, p)}
}

func (h *history) do(method, path, contentType string, body []byte) *http.Response {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	h.engine.ServeHTTP(w, r)
	return w.Result()
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (h *history) pushBlob(t *rapid.T) {
	h.push(t, rapid.SampledFrom(repositories).Draw(t, "repository"), rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "content"))
}

func (h *history) push(t *rapid.T, repository string, content []byte) (digest string) {
	begun := h.do(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
	digest = digestOf(content)
	to, err := begun.Location()
	if err != nil {
		t.Fatal(err)
	}
	if done := h.do(http.MethodPut, to.RequestURI()+"&digest="+digest, "application/octet-stream", content); done.StatusCode != http.StatusCreated {
		t.Fatalf("push a blob: %s", done.Status)
	}
	if !slices.Contains(h.blobs, digest) {
		h.blobs = append(h.blobs, digest)
	}
	return digest
}

// pushManifest pushes one of any kind, with all that it names.
func (h *history) pushManifest(t *rapid.T) {
	repository := rapid.SampledFrom(repositories).Draw(t, "repository")
	mediaType := rapid.SampledFrom([]string{dockerManifest, dockerList, ociManifest, ociIndex}).Draw(t, "type")
	config := h.push(t, repository, []byte(fmt.Sprintf(`{"n": %d}`, rapid.IntRange(0, 3).Draw(t, "config"))))
	content := map[string]any{"schemaVersion": 2, "mediaType": mediaType}
	if strings.Contains(mediaType, "oci") && rapid.Bool().Draw(t, "without a type") {
		delete(content, "mediaType")
	}
	part := func(mediaType, digest string, size int) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": digest, "size": size}
	}
	switch mediaType {
	case dockerManifest, ociManifest:
		content["config"] = part("application/vnd.oci.image.config.v1+json", config, 8)
		content["layers"] = []any{}
	default:
		image, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": dockerManifest, "layers": []any{}, "config": part("application/vnd.docker.container.image.v1+json", config, 8),
		})
		if err != nil {
			t.Fatal(err)
		}
		h.put(t, repository, digestOf(image), dockerManifest, image)
		entry := part(dockerManifest, digestOf(image), len(image))
		entry["platform"] = map[string]any{"architecture": rapid.SampledFrom([]string{"amd64", "arm64"}).Draw(t, "architecture"), "os": "linux"}
		content["manifests"] = []any{entry}
	}
	text, err := json.MarshalIndent(content, "", strings.Repeat(" ", rapid.IntRange(0, 3).Draw(t, "indent")))
	if err != nil {
		t.Fatal(err)
	}
	reference := rapid.SampledFrom(append(slices.Clone(tags), digestOf(text))).Draw(t, "reference")
	h.put(t, repository, reference, mediaType, text)
}

func (h *history) put(t *rapid.T, repository, reference, mediaType string, content []byte) {
	done := h.do(http.MethodPut, "/v2/"+repository+"/manifests/"+reference, mediaType, content)
	if done.StatusCode != http.StatusCreated {
		var said bytes.Buffer
		_, _ = said.ReadFrom(done.Body)
		t.Fatalf("push a manifest: %s: %s\n%s", done.Status, &said, content)
	}
	if digest := digestOf(content); !slices.Contains(h.manifests, digest) {
		h.manifests = append(h.manifests, digest)
	}
}

func (h *history) remove(t *rapid.T) {
	path, _ := h.path(t)
	h.do(http.MethodDelete, path, "", nil) // or it is not there
}

// path draws something that may be there.
func (h *history) path(t *rapid.T) (path, what string) {
	repository := "/v2/" + rapid.SampledFrom(repositories).Draw(t, "repository")
	kind := rapid.IntRange(0, 9).Draw(t, "what")
	switch {
	case kind < 4:
		return repository + "/manifests/" + rapid.SampledFrom(tags).Draw(t, "tag"), "tag"
	case kind < 6 && len(h.manifests) > 0:
		return repository + "/manifests/" + rapid.SampledFrom(h.manifests).Draw(t, "digest"), "digest"
	case kind < 9 && len(h.blobs) > 0:
		return repository + "/blobs/" + rapid.SampledFrom(h.blobs).Draw(t, "blob"), "blob"
	case len(h.manifests) > 0 && rapid.Bool().Draw(t, "misplaced"):
		return repository + "/blobs/" + rapid.SampledFrom(h.manifests).Draw(t, "digest"), "blob"
	}
	return "/v2/", "/v2/"
}

// read compares a few reads.
func (h *history) read(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "reads") {
		path, what := h.path(t)
		r := httptest.NewRequest(rapid.SampledFrom([]string{http.MethodGet, http.MethodHead}).Draw(t, "method"), path, nil)
		for range rapid.IntRange(0, 2).Draw(t, "accepts") {
			r.Header.Add("Accept", rapid.SampledFrom([]string{dockerManifest, dockerList, ociManifest, ociIndex, "*/*", strings.ToUpper(ociIndex), ociManifest + ", " + ociIndex + ";q=0.5", dockerManifest + "," + ociManifest}).Draw(t, "accept"))
		}
		if what == "blob" && rapid.Bool().Draw(t, "in part") {
			what = "range"
			r.Header.Set("Range", rapid.SampledFrom([]string{"bytes=0-0", "bytes=5-", "bytes=-7", "bytes=1-2,4-5", "bytes=9999-", "bytes=x", "lines=1-2"}).Draw(t, "range"))
		}
		if rapid.IntRange(0, 3).Draw(t, "known") == 0 {
			what = "unchanged"
			known := rapid.SampledFrom(append([]string{"sha256:0", "*"}, slices.Concat(h.blobs, h.manifests)...)).Draw(t, "etag")
			if own := path[strings.LastIndex(path, "/")+1:]; strings.HasPrefix(own, "sha256:") && rapid.Bool().Draw(t, "its own") {
				known = own
			}
			if rapid.Bool().Draw(t, "quoted") {
				known = `"` + known + `"`
			}
			r.Header.Set(rapid.SampledFrom([]string{"If-None-Match", "If-Match", "If-Range"}).Draw(t, "condition"), known)
		}
		h.compare(t, r, what)
	}
}

func (h *history) compare(t *rapid.T, r *http.Request, what string) {
	byEngine, byReads := httptest.NewRecorder(), httptest.NewRecorder()
	h.engine.ServeHTTP(byEngine, r.Clone(r.Context()))
	kinds := []string{what, strconv.Itoa(byEngine.Code)}
	if multipart(byEngine.Header()) != "" {
		kinds = append(kinds, "multipart")
	}
	for _, kind := range kinds {
		h.asked[kind]++
	}
	if !h.reads.Answer(byReads, r) {
		if len(byReads.Header()) > 0 || byReads.Body.Len() > 0 {
			t.Fatalf("%s %s: left to the engine, and begun: %v", r.Method, r.URL, byReads.Header())
		}
		return
	}
	for _, kind := range kinds {
		h.answered[kind]++
	}
	if byEngine.Code != byReads.Code {
		t.Fatalf("%s %s %v: %d, the engine answers %d", r.Method, r.URL, r.Header, byReads.Code, byEngine.Code)
	}
	want, got := byEngine.Result().Header, byReads.Result().Header
	if boundary := multipart(want); boundary != "" { // drawn anew for each answer
		own := multipart(got)
		if own == "" {
			t.Fatalf("%s %s %v: %v, the engine answers in parts", r.Method, r.URL, r.Header, got)
		}
		got.Set("Content-Type", want.Get("Content-Type"))
		byReads.Body = bytes.NewBuffer(bytes.ReplaceAll(byReads.Body.Bytes(), []byte(own), []byte(boundary)))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s %s %v: headers differ (- engine, + direct)\n%s", r.Method, r.URL, r.Header, diff)
	}
	if !bytes.Equal(byEngine.Body.Bytes(), byReads.Body.Bytes()) {
		t.Fatalf("%s %s %v: the bodies differ", r.Method, r.URL, r.Header)
	}
}

func multipart(h http.Header) string {
	_, boundary, _ := strings.Cut(h.Get("Content-Type"), "multipart/byteranges; boundary=")
	return boundary
}
