package registry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// uploads counts those on the disk.
func uploads(t *testing.T, root string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docker/registry/v2/repositories/*/_uploads/*"))
	must(t, err)
	return len(found)
}

func TestAbandonedUploadsArePurged(t *testing.T) {
	root := t.TempDir()
	var lines bytes.Buffer
	e := newEmbedded(t, EmbeddedConfig{Root: root})
	r := &Registry{cfg: Config{Driver: Driver(e.cfg.Parameters, root), Purge: e.cfg.Parameters.Purge(), Log: slog.New(slog.NewTextHandler(&lines, nil))}}
	r.purge(t.Context()) // nothing was pushed yet
	old := upload(t, e)
	startedAt, err := filepath.Glob(filepath.Join(root, "docker/registry/v2/repositories/app/_uploads/*/startedat"))
	must(t, err)
	must(t, os.WriteFile(startedAt[0], []byte(time.Now().Add(-2*e.cfg.Parameters.Purge().Age).Format(time.RFC3339)), 0o600))
	upload(t, e)
	r.purge(t.Context())
	if n := uploads(t, root); n != 1 {
		t.Errorf("%d uploads are left, want the young one", n)
	}
	if resp := answer(t, e, http.MethodPatch, old.RequestURI(), strings.NewReader("part")); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an abandoned upload went on: %s", resp.Status)
	}
	if got := lines.String(); strings.Count(got, "abandoned") != 1 || !strings.Contains(got, "uploads=1") || strings.Contains(got, "level=ERROR") {
		t.Errorf("logged %q", got)
	}
}

func TestPurgeAgainAndAgain(t *testing.T) {
	root := t.TempDir()
	e := newEmbedded(t, EmbeddedConfig{Root: root}) // outside of the bubble, for the goroutine that stays
	upload(t, e)
	r := &Registry{cfg: Config{Driver: Driver(e.cfg.Parameters, root), Purge: e.cfg.Parameters.Purge(), Log: slog.New(slog.DiscardHandler)}}
	synctest.Test(t, func(t *testing.T) {
		startedAt, err := filepath.Glob(filepath.Join(root, "docker/registry/v2/repositories/app/_uploads/*/startedat"))
		must(t, err)
		must(t, os.WriteFile(startedAt[0], []byte(time.Now().Format(time.RFC3339)), 0o600))
		ctx, stop := context.WithTimeout(t.Context(), e.cfg.Parameters.Purge().Age-e.cfg.Parameters.Purge().Every)
		defer stop()
		must(t, r.keepPurging(ctx))
		if n := uploads(t, root); n != 1 || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("%d uploads after %v", n, e.cfg.Parameters.Purge().Age-e.cfg.Parameters.Purge().Every)
		}
		ctx, stop = context.WithTimeout(t.Context(), 2*e.cfg.Parameters.Purge().Every)
		defer stop()
		must(t, r.keepPurging(ctx))
		if n := uploads(t, root); n != 0 {
			t.Errorf("%d uploads after %v", n, e.cfg.Parameters.Purge().Age+e.cfg.Parameters.Purge().Every)
		}
	})
}
