package registry

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/docker/go-events.(*Broadcaster).run"),
		goleak.IgnoreAnyFunction("github.com/distribution/distribution/v3/notifications.(*eventQueue).run"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened is an engine with one replica.
type opened struct {
	*Embedded
	http.Handler
}

func newEmbedded(t *testing.T, cfg EmbeddedConfig) opened {
	t.Helper()
	e, err := NewEmbedded(t.Context(), cfg)
	must(t, err)
	replica, err := e.Open(t.Context(), "")
	must(t, err)
	return opened{e, replica.Handler}
}

// answer asks an engine as the edge would.
func answer(t *testing.T, e http.Handler, method, target string, body io.Reader) *http.Response {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, body)
	req.Header.Set("X-Forwarded-Proto", "https")
	req.Header.Set("X-Forwarded-Host", "registry.test:5000")
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, req)
	return rec.Result()
}

func TestPushAndPull(t *testing.T) {
	root := t.TempDir()
	srv := httptest.NewServer(newEmbedded(t, EmbeddedConfig{Root: root}))
	defer srv.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	image, err := random.Image(100_000, 3)
	must(t, err)
	ref, err := name.ParseReference(srv.Listener.Addr().String()+"/team/app:v1", name.Insecure)
	must(t, err)
	must(t, remote.Write(ref, image, remote.WithTransport(transport)))

	// As the official image lays it out, so that either can take over.
	if _, err := os.Stat(filepath.Join(root, "docker/registry/v2/repositories/team/app/_manifests/tags/v1/current/link")); err != nil {
		t.Error(err)
	}

	// Another engine on the same data serves it.
	again := httptest.NewServer(newEmbedded(t, EmbeddedConfig{Root: root}))
	defer again.Close()
	ref, err = name.ParseReference(again.Listener.Addr().String()+"/team/app:v1", name.Insecure)
	must(t, err)
	pulled, err := remote.Image(ref, remote.WithTransport(transport))
	must(t, err)
	want, err := image.Digest()
	must(t, err)
	if got, err := pulled.Digest(); err != nil || got != want {
		t.Errorf("pulled %v (%v), pushed %v", got, err, want)
	}
	must(t, remote.Delete(ref.Context().Digest(want.String()), remote.WithTransport(transport)))
	if _, err := remote.Image(ref, remote.WithTransport(transport)); err == nil {
		t.Error("a deleted manifest was pulled")
	}
}

// upload begins one and returns where it goes on.
func upload(t *testing.T, e http.Handler) *url.URL {
	t.Helper()
	resp := answer(t, e, http.MethodPost, "/v2/app/blobs/uploads/", nil)
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("begin an upload: %s", resp.Status)
	}
	location, err := resp.Location()
	must(t, err)
	return location
}

func TestLocationIsTheClients(t *testing.T) {
	location := upload(t, newEmbedded(t, EmbeddedConfig{Root: t.TempDir()}))
	if location.Scheme != "https" || location.Host != "registry.test:5000" {
		t.Errorf("the upload goes on at %s", location)
	}
}

func TestUploadGoesOnWithTheSameSecret(t *testing.T) {
	root := t.TempDir()
	for _, c := range []struct {
		first, second string
		want          int
	}{
		{"secret", "secret", http.StatusAccepted},
		{"secret", "another", http.StatusNotFound},
		{"", "", http.StatusNotFound}, // random ones
	} {
		location := upload(t, newEmbedded(t, EmbeddedConfig{Root: root, HTTPSecret: c.first}))
		again := newEmbedded(t, EmbeddedConfig{Root: root, HTTPSecret: c.second})
		resp := answer(t, again, http.MethodPatch, location.RequestURI(), strings.NewReader("part of a blob"))
		if resp.StatusCode != c.want {
			t.Errorf("with secrets %q and %q: %s, want %d", c.first, c.second, resp.Status, c.want)
		}
	}
}

func TestNothingBesideTheAPI(t *testing.T) {
	e := newEmbedded(t, EmbeddedConfig{Root: t.TempDir()})
	for _, path := range []string{"/", "/metrics", "/debug/vars", "/debug/health", "/debug/pprof/"} {
		if resp := answer(t, e, http.MethodGet, path, nil); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestEnvironmentStaysOutside(t *testing.T) {
	elsewhere := t.TempDir()
	t.Setenv("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", elsewhere)
	t.Setenv("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true")
	// Only who reads settings decides whether the environment is in them.
	upload(t, newEmbedded(t, EmbeddedConfig{Root: t.TempDir(), Parameters: given(t, "")}))
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestBadRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, root := range []string{"", file, filepath.Join(file, "below"), filepath.Join(t.TempDir(), "missing")} {
		if _, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: root}); err == nil || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("root %q: %v", root, err)
		}
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	c, err := given(t, "").Configuration(t.TempDir(), "secret")
	must(t, err)
	c.Storage["maintenance"] = configuration.Parameters{"uploadpurging": "often"}
	if _, err := newApp(t.Context(), c); err == nil || !strings.Contains(err.Error(), "uploadpurging") {
		t.Errorf("error %v", err)
	}
}

// What clients do wrong is theirs; what the engine cannot do is the operator's.
func TestLogs(t *testing.T) {
	var lines bytes.Buffer
	root := t.TempDir()
	e := newEmbedded(t, EmbeddedConfig{Root: root, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	if resp := answer(t, e, http.MethodGet, "/v2/app/manifests/missing", nil); resp.StatusCode != http.StatusNotFound {
		t.Fatal(resp.Status)
	}
	upload(t, e)
	if lines.Len() > 0 {
		t.Errorf("logged %s", &lines)
	}
	must(t, os.RemoveAll(filepath.Join(root, "docker")))
	must(t, os.WriteFile(filepath.Join(root, "docker"), nil, 0o600)) // no upload can begin
	if resp := answer(t, e, http.MethodPost, "/v2/app/blobs/uploads/", nil); resp.StatusCode != http.StatusInternalServerError {
		t.Fatal(resp.Status)
	}
	if got := lines.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "engine=embedded") || !strings.Contains(got, "/v2/app/blobs/uploads/") {
		t.Errorf("logged %q", got)
	}
}
