package registry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/trustcast/trustcast/internal/peer"
)

// TestAnswersAsksWho: a replica could have left a link, or died and left its place to
// somebody else's program; only its own user answers for it.
func TestAnswersAsksWho(t *testing.T) {
	var asked atomic.Int32
	d := answering(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	must(t, d.answers(t.Context(), anyID))
	d.cfg.UID++
	other, ok := errors.AsType[*peer.OtherError](d.answers(t.Context(), anyID))
	if !ok || other.UID != os.Geteuid() || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", other, asked.Load())
	}
}

// answering is an engine at whose socket of anyID this process answers.
func answering(t *testing.T, handler http.HandlerFunc) *Docker {
	t.Helper()
	root, err := os.MkdirTemp("", "tct") // short: sockets are below
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(root)) })
	must(t, os.Mkdir(filepath.Join(root, runDir), 0o700))
	lis, err := net.Listen("unix", filepath.Join(root, socketName(anyID)))
	must(t, err)
	web := &http.Server{Handler: handler}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(lis) }()
	t.Cleanup(func() {
		must(t, web.Shutdown(context.WithoutCancel(t.Context())))
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return &Docker{cfg: DockerConfig{Root: root, UID: os.Geteuid()}}
}

// TestAnswersOfAReplica: they are words of somebody who is not trusted.
func TestAnswersOfAReplica(t *testing.T) {
	for says, want := range map[string]string{
		"HTTP/1.1 500 \x1b[2J\xff\r\nContent-Length: 0\r\n\r\n":                      "it answers 500 to GET /v2/",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswerHeader) + "\r\n\r\n": "response headers exceeded",
	} {
		d := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, says) // the other side may have had enough
			_ = conn.Close()
		})
		if err := d.answers(t.Context(), anyID); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

// TestProblemInWords: what a replica said goes to terminals, and through protobuf,
// which takes UTF-8 alone. Lines stay.
func TestProblemInWords(t *testing.T) {
	r := &Registry{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	r.setProblem(errors.New("it said:\n  \x1b[2J\xffcaf\u00e9\n" + strings.Repeat("\u00e9", maxProblem)))
	if !strings.HasPrefix(r.problem, "it said:\n   [2Jcaf\u00e9\n") || len(r.problem) > maxProblem || !utf8.ValidString(r.problem) {
		t.Errorf("%d bytes: %.100q", len(r.problem), r.problem)
	}
}
