package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// A mirror ends with its engine: what it keeps is written down then and never after,
// by which a directory would come again.
func TestMirrorEnds(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	peer := httptest.NewServer(newEmbedded(t, EmbeddedConfig{Root: t.TempDir()}))
	defer func() {
		peer.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("github.com/docker/go-events.(*Broadcaster).run"))
	}()
	root := t.TempDir()
	e, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: root, Parameters: given(t, "proxy: {remoteurl: '"+peer.URL+"'}")})
	must(t, err)
	for range 2 {
		_, err = e.Open(t.Context(), "")
		must(t, err)
	}
	must(t, e.End())
	if alive, err := e.Alive(t.Context(), []string{"embedded-1", "embedded-2"}); err != nil || len(alive) > 0 {
		t.Errorf("alive %v (%v)", alive, err)
	}
	if _, err := os.Stat(filepath.Join(root, "scheduler-state.json")); err != nil {
		t.Error(err)
	}
}

// The registry that a mirror is of may be silent: neither the server's start nor its
// end waits for it.
func TestMirrorOfSilence(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	must(t, err)
	defer func() { must(t, lis.Close()) }()
	s := given(t, "proxy: {remoteurl: 'http://"+lis.Addr().String()+"'}")
	e, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: t.TempDir(), Parameters: s})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := e.Open(ctx, ""); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "registry.proxy.remoteurl") {
		t.Errorf("opened a mirror of silence: %v", err)
	}
}
