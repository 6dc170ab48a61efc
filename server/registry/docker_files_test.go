package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/trustcast/trustcast/internal/peer"
)

// TestAnswersAsksWho: a replica could have left a link, or died and left its place to
// somebody else's program; only its own user answers for it.
func TestAnswersAsksWho(t *testing.T) {
	root, err := os.MkdirTemp("", "tct") // short: sockets are below
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(root)) })
	must(t, os.Mkdir(filepath.Join(root, runDir), 0o700))
	lis, err := net.Listen("unix", filepath.Join(root, socketName(anyID)))
	must(t, err)
	var asked atomic.Int32
	web := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(lis) }()
	t.Cleanup(func() {
		must(t, web.Shutdown(context.WithoutCancel(t.Context())))
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	d := &Docker{cfg: DockerConfig{Root: root, UID: os.Geteuid()}}
	must(t, d.answers(t.Context(), anyID))
	d.cfg.UID++
	other, ok := errors.AsType[*peer.OtherError](d.answers(t.Context(), anyID))
	if !ok || other.UID != os.Geteuid() || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", other, asked.Load())
	}
}
