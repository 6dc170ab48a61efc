package contract

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// traffic pulls one image and pushes others until it is ended. After a kill, what
// fails may fail.
type traffic struct {
	s       *site
	workers sync.WaitGroup
	killed  atomic.Bool
	pulls   atomic.Int64
	failed  atomic.Int64 // after the kill

	mu     sync.Mutex
	pushed map[string]v1.Image // guarded by mu: each was acknowledged
}

// drive begins the traffic; its tags carry the name.
func (s *site) drive(name string, image v1.Image) *traffic {
	c := &traffic{s: s, pushed: map[string]v1.Image{}}
	c.work(func(int) error {
		err := s.pull("app:v1", image)
		if err == nil {
			c.pulls.Add(1)
		}
		return err
	})
	c.work(func(i int) error {
		tag := fmt.Sprintf("pushed:%s-%d", name, i)
		fresh, err := random.Image(20_000, 3)
		if err != nil {
			return err
		}
		if err := remote.Write(s.ref(tag), fresh, s.options()...); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pushed[tag] = fresh
		return nil
	})
	return c
}

func (c *traffic) work(once func(i int) error) {
	c.workers.Go(func() {
		for i := 0; !c.killed.Load(); i++ {
			err := once(i)
			switch {
			case err != nil && c.killed.Load():
				c.failed.Add(1)
			case err != nil:
				c.s.t.Errorf("before the kill: %v", err)
				return
			}
		}
	})
}

func (c *traffic) acknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pushed)
}

// The server is killed with -9 in the middle of pulls, pushes, an upload and a
// download, and started again: what was acknowledged is there, uploads go on, and
// replicas of Docker have not noticed.
func TestServerKilled(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 100_000, 2)
		content, big := blob(bigBlob)
		s.upload("app", content, big)
		s.end()
		kill := s.startProcess()
		for life := range 3 {
			replicas := s.containersOf()
			half, digest := blob(2 << 20)
			at := s.chunk(s.begin("app"), half, 0, 1<<20)
			f, c := s.takeOff(big), s.drive(fmt.Sprint(life), image)
			s.until("images are pushed and pulled", func() error {
				if c.acknowledged() < 2 || c.pulls.Load() < 2 {
					return fmt.Errorf("%d pushes, %d pulls", c.acknowledged(), c.pulls.Load())
				}
				return nil
			})
			c.killed.Store(true)
			kill()
			f.cut()
			kill = s.startProcess()
			c.workers.Wait()
			if now := s.containersOf(); len(now) != s.cfg.Replicas || !slices.Equal(now, replicas) {
				t.Errorf("replicas %q, before the kill %q", now, replicas)
			}
			must(t, s.pull("app:v1", image))
			for tag, image := range c.pushed {
				must(t, s.pull(tag, image))
			}
			// What was acknowledged of an upload counts, and what was not is asked for.
			at = s.chunk(at, half, 1<<20, 2<<20)
			s.want(http.StatusCreated, http.MethodPut, finish(at, digest), nil)
			if _, got := s.do(http.MethodGet, "/v2/app/blobs/"+digest, nil); got != string(half) {
				t.Error("the blob is not what was uploaded")
			}
			t.Logf("killed after %d pulls and %d acknowledged pushes; %d failed by it; the upload in flight went on at byte %d of %d", c.pulls.Load(), c.acknowledged(), c.failed.Load(), f.resume(), len(f.content))
		}
	})
}

// cut wants both to have ended with an error: they were in flight.
func (f *flight) cut() {
	f.s.t.Helper()
	_, _ = io.Copy(f.body, bytes.NewReader(f.content[len(f.content)/2:])) // net/http looks at its connection when it has something to send
	_ = f.body.Close()
	if a := <-f.uploading; a.err == nil {
		f.s.t.Errorf("the upload was answered with %s", a.resp.Status)
	}
	if _, err := io.Copy(&f.got, f.download.Body); err == nil {
		f.s.t.Errorf("the download ended after %d bytes as if nothing had happened", f.got.Len())
	}
}

// resume asks how far an upload has come that was cut, and ends it from there.
func (f *flight) resume() (from int) {
	f.s.t.Helper()
	f.s.until("an upload that was cut goes on", func() error { // a replica may be at its last bytes
		resp, text := f.s.do(http.MethodGet, f.at, nil)
		if resp.StatusCode != http.StatusNoContent {
			return errText(resp.Status + " " + text)
		}
		var last int
		if _, err := fmt.Sscanf(resp.Header.Get("Range"), "0-%d", &last); err != nil {
			return err
		}
		if from = last + 1; last == 0 { // which says that nothing is there
			from = 0
		}
		resp, text = f.s.do(http.MethodPatch, f.s.onward(resp), bytes.NewReader(f.content[from:]), "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", from, len(f.content)-1))
		if resp.StatusCode != http.StatusAccepted {
			return errText(resp.Status + " " + text)
		}
		f.uploaded(f.s.onward(resp))
		return nil
	})
	return from
}

// containersOf the registry, sorted; none with the embedded engine.
func (s *site) containersOf() []string {
	if s.engine != "docker" {
		return nil
	}
	return slices.Sorted(slices.Values(s.containers()))
}
