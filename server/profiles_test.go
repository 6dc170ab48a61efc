package server

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// askProfile gets a path of the health port; host, if any, is what a browser would
// send.
func askProfile(t *testing.T, on bool, path, host string) (status int, body []byte) {
	t.Helper()
	n := &node{cfg: Config{Pprof: on}, metrics: prometheus.NewRegistry()}
	srv := httptest.NewServer(n.healthHandler())
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

func TestProfiles(t *testing.T) {
	gzipped := []byte{0x1f, 0x8b}
	for _, path := range []string{"/debug/pprof/profile?seconds=1", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/allocs"} {
		if status, body := askProfile(t, true, path, ""); status != http.StatusOK || !bytes.HasPrefix(body, gzipped) {
			t.Errorf("%s: %d, %d bytes, %.20q", path, status, len(body), body)
		}
		if status, _ := askProfile(t, false, path, ""); status != http.StatusNotFound {
			t.Errorf("%s without --pprof: %d", path, status)
		}
		// As of a web page whose name points to this machine.
		if status, _ := askProfile(t, true, path, "page.example:7480"); status != http.StatusForbidden {
			t.Errorf("%s for a web page: %d", path, status)
		}
	}
	for path, status := range map[string]int{
		"/debug/pprof/trace?seconds=100000": http.StatusBadRequest, "/debug/pprof/profile?seconds=x": http.StatusBadRequest, "/debug/pprof/symbol": http.StatusOK,
	} {
		if got, _ := askProfile(t, true, path, ""); got != status {
			t.Errorf("%s: %d, want %d", path, got, status)
		}
	}
	// What others put on the default mux is not there.
	other := "/debug/" + rand.Text() // a second run puts another one there
	http.HandleFunc(other, func(http.ResponseWriter, *http.Request) { t.Error("the default mux was asked") })
	for _, path := range []string{other, "/debug/vars", "/debug/health", "/debug/requests", "/debug/"} {
		if status, _ := askProfile(t, true, path, ""); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestProfilesAreForThisMachine(t *testing.T) {
	for listen, allowed := range map[string]bool{
		"": true, "127.0.0.1:7480": true, "127.9.9.9:0": true, "[::1]:7480": true, "localhost:7480": true,
		"off": false, ":7480": false, "0.0.0.0:7480": false, "[::]:7480": false, "192.0.2.1:7480": false, "monitor.example:7480": false,
	} {
		err := Config{DataDir: t.TempDir(), HTTPListen: listen, Pprof: true}.Check()
		if (err == nil) != allowed || err != nil && !strings.Contains(err.Error(), "--pprof") {
			t.Errorf("--http-listen %q: %v", listen, err)
		}
		if err := (Config{DataDir: t.TempDir(), HTTPListen: listen}).Check(); err != nil {
			t.Errorf("--http-listen %q without --pprof: %v", listen, err)
		}
	}
}
