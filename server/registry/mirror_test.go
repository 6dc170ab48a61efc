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
	"sync/atomic"
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

// It may also answer once and fall silent before distribution asks again, which
// distribution does without a limit.
func TestMirrorOfSuddenSilence(t *testing.T) {
	for name, want := range map[string]error{"until it is late": errLate, "until the server ends": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var asked atomic.Int32
			speak := make(chan struct{})
			peer := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				if asked.Add(1) == 1 {
					return
				}
				if errors.Is(want, context.Canceled) {
					cancel()
				}
				<-speak
			}))
			root := t.TempDir()
			e, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: root, Parameters: given(t, "proxy: {remoteurl: '"+peer.URL+"'}")})
			must(t, err)
			opened := make(chan error, 1)
			go func() {
				_, err := e.Open(ctx, "")
				opened <- err
			}()
			select {
			case err = <-opened:
			case <-time.After(4 * answerWithin):
				err = errors.New("nothing after four times the limit")
			}
			close(speak)
			peer.Close()
			if !errors.Is(err, want) || !strings.Contains(err.Error(), peer.URL+" of registry.proxy.remoteurl") {
				t.Fatalf("opened a mirror of sudden silence: %v", err)
			}

			// What begins too late ends at once, and has its schedule written by that.
			for limit := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				if _, err := os.Stat(filepath.Join(root, "scheduler-state.json")); err == nil {
					return
				}
				if time.Now().After(limit) {
					t.Fatal("what began too late has not ended")
				}
			}
		})
	}
}
