package registry

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

func given(t *testing.T, text string, environ ...string) *parameters.Set {
	t.Helper()
	s, err := parameters.Parse([]byte(text), environ, parameters.Options{})
	must(t, err)
	return s
}

// What the registry says of its work goes where the operator looks for it.
func TestLevelAndFieldsCount(t *testing.T) {
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	e := newEmbedded(t, EmbeddedConfig{Root: t.TempDir(), Log: log, Parameters: given(t, "log: {level: info, fields: {team: a}}")})
	upload(t, e)
	if got := lines.String(); !strings.Contains(got, "level=INFO") || !strings.Contains(got, "team=a") {
		t.Errorf("logged %q", got)
	}
}

// The embedded registry does what the operator says.
func TestParametersCount(t *testing.T) {
	root := t.TempDir()
	remove := func(s *parameters.Set) int {
		e := newEmbedded(t, EmbeddedConfig{Root: root, Parameters: s})
		return answer(t, e, http.MethodDelete, "/v2/app/manifests/sha256:"+strings.Repeat("0", 64), nil).StatusCode
	}
	if got := remove(given(t, "")); got != http.StatusNotFound {
		t.Errorf("by default a deletion gets %d", got)
	}
	if got := remove(given(t, "storage: {delete: {enabled: false}}")); got != http.StatusMethodNotAllowed {
		t.Errorf("with delete.enabled: false, a deletion gets %d", got)
	}
	if got := remove(given(t, "storage: {delete: {enabled: false}}", "REGISTRY_STORAGE_DELETE_ENABLED=true")); got != http.StatusNotFound {
		t.Errorf("with the variable over the file, a deletion gets %d", got)
	}
	// A panic in distribution when its own parser reads it.
	e := newEmbedded(t, EmbeddedConfig{Root: root, Parameters: given(t, "", "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true")})
	if got := answer(t, e, http.MethodPost, "/v2/app/blobs/uploads/", nil).StatusCode; got != http.StatusMethodNotAllowed {
		t.Errorf("read-only, an upload gets %d", got)
	}
	e = newEmbedded(t, EmbeddedConfig{Root: root, Parameters: given(t, "http: {headers: {X-Test: [a]}}")})
	if got := answer(t, e, http.MethodGet, "/v2/", nil).Header.Get("X-Test"); got != "a" {
		t.Errorf("the header is %q", got)
	}
	e = newEmbedded(t, EmbeddedConfig{Root: root, Parameters: given(t, "", "REGISTRY_CATALOG_MAXENTRIES=5")})
	for n, want := range map[string]int{"5": http.StatusOK, "6": http.StatusBadRequest} {
		if got := answer(t, e, http.MethodGet, "/v2/_catalog?n="+n, nil).StatusCode; got != want {
			t.Errorf("a catalog of %s gets %d", n, got)
		}
	}
}

func TestPurgeAsConfigured(t *testing.T) {
	root := t.TempDir()
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	e := newEmbedded(t, EmbeddedConfig{Root: root})
	upload(t, e)
	startedAt, err := filepath.Glob(filepath.Join(root, "docker/registry/v2/repositories/app/_uploads/*/startedat"))
	must(t, err)
	must(t, os.WriteFile(startedAt[0], []byte(time.Now().Add(-2*time.Hour).Format(time.RFC3339)), 0o600))
	for _, c := range []struct {
		age, dryrun, said string
		left              int
	}{{"3h", "false", "", 1}, {"1h", "true", "kept", 1}, {"1h", "false", "removed", 0}} {
		p := given(t, "storage: {maintenance: {uploadpurging: {age: "+c.age+"}}}", "REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_DRYRUN="+c.dryrun).Purge()
		must(t, purgeOnce(t.Context(), rooted{root}, p, log))
		if n := uploads(t, root); n != c.left || !strings.Contains(lines.String(), c.said) {
			t.Errorf("%+v: %d are left, said %q", c, n, &lines)
		}
	}
}

func TestInMemory(t *testing.T) {
	root := t.TempDir()
	s := given(t, "storage: inmemory")
	upload(t, newEmbedded(t, EmbeddedConfig{Root: root, Parameters: s}))
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 || s.StorageDriver() != "inmemory" {
		t.Errorf("%v, %v, %s", entries, err, s.StorageDriver())
	}
}

func TestHealthChecks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "down")
	must(t, os.WriteFile(file, nil, 0o600))
	e := newEmbedded(t, EmbeddedConfig{Root: t.TempDir(), Parameters: given(t, "health: {file: [{file: "+file+", interval: 1ms}]}")})
	defer func() { must(t, e.Close(t.Context(), "embedded-1")) }()
	want := http.StatusServiceUnavailable
	for range 2 {
		for deadline := time.Now().Add(10 * time.Second); answer(t, e, http.MethodGet, "/v2/", nil).StatusCode != want; {
			if time.Now().After(deadline) {
				t.Fatal("the health check does not count")
			}
		}
		_ = os.Remove(file)
		want = http.StatusOK
	}
}
