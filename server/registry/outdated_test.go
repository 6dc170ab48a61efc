package registry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/test/images"
)

// A server that starts with an image that cannot be had serves with what an earlier
// life left, says why, and goes over when the image is there.
func TestAnImageThatCannotBeHad(t *testing.T) {
	stand := newStand(t, images.Registry(t))
	left := open(t, stand.engine(t))

	var log bytes.Buffer
	stand.cfg.Image = "trustcast.invalid/later:" + newReplicaID()
	stand.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := overDocker(t, stand)

	s.until("it is said why", func() bool { return s.life.View().Problem != "" })
	for _, want := range []string{"serves with " + left.Image, "not with " + stand.cfg.Image, "pull the image", "docker load"} {
		if problem := s.life.View().Problem; !strings.Contains(problem, want) {
			t.Errorf("no %q in the problem %q", want, problem)
		}
	}
	if _, serving := s.front.look(); !slices.Equal(serving, []string{left.ID}) {
		t.Fatalf("serving %v, want %s", serving, left.ID)
	}
	if err := s.life.Restart(t.Context(), quiet); err == nil || !s.serves(1)() {
		t.Errorf("a restart with that image: %v", err)
	}
	if err := s.life.Upgrade(t.Context(), "trustcast.invalid/other:1", quiet); err == nil || !strings.Contains(err.Error(), "serves with "+left.Image) {
		t.Errorf("an upgrade to another such image: %v", err)
	}

	docker(t, "tag", images.RegistryNext(t), stand.cfg.Image)
	t.Cleanup(func() { docker(t, "image", "rm", stand.cfg.Image) })
	must(t, s.life.Restart(t.Context(), quiet))
	if v := s.life.View(); v.Problem != "" || len(v.Replicas) != 1 || v.Replicas[0].Image != stand.cfg.Image {
		t.Errorf("after the restart: %+v", v)
	}
	s.until("the old replica ends", func() bool {
		alive, err := s.life.cfg.Engine.Alive(t.Context(), []string{left.ID})
		return err == nil && len(alive) == 0
	})
	must(t, s.life.Stop(t.Context(), quiet))
	s.end() // the log is read
	if said := log.String(); !strings.Contains(said, "pulling the registry's image") || strings.Contains(said, "image is pulled") {
		t.Errorf("log:\n%s", said)
	}
}

// Nobody has to ask: a replica of another image goes when a new one serves.
func TestOutdatedReplicasAreReplaced(t *testing.T) {
	stand := newStand(t, images.Registry(t))
	left := open(t, stand.engine(t))
	stand.cfg.Image = images.RegistryNext(t)
	s := overDocker(t, stand)
	s.until("the old replica is taken out", func() bool {
		_, serving := s.front.look()
		return len(serving) == 1 && serving[0] != left.ID
	})
	_, serving := s.front.look()
	s.front.mu.Lock()
	defer s.front.mu.Unlock()
	want := []string{"serve " + left.ID, "serve " + left.ID + " " + serving[0], "serve " + serving[0]}
	if said := s.front.said[1:]; len(said) < len(want) || !slices.Equal(said[:len(want)], want) { // after the gate
		t.Errorf("the front was told %q, want %q", said, want)
	}
}

// overDocker is a running registry over the engine of a stand.
func overDocker(t *testing.T, stand *stand) *site {
	t.Helper()
	s := &site{t: t}
	var err error
	s.store, err = records.Open(t.TempDir())
	must(t, err)
	s.life, err = Open(Config{Records: s.store, Engine: stand.engine(t), Front: s.front.front(), Image: stand.cfg.Image, Log: stand.cfg.Log})
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	s.stop, s.stopped = stop, make(chan struct{})
	go func() {
		defer close(s.stopped)
		if err := s.life.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if ctx.Err() == nil {
			must(t, s.life.Stop(ctx, quiet))
		}
		s.end()
	})
	return s
}

// What stays wrong is said again now and then, and not at each try.
func TestAProblemIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &Registry{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}}
		for began := time.Now(); time.Since(began) < 2*tellEvery+time.Minute; time.Sleep(retryMost) {
			r.setProblem(errors.New("no image"))
		}
		if n := strings.Count(log.String(), "no image"); n != 3 {
			t.Errorf("said %d times, want 3:\n%s", n, &log)
		}
	})
}
