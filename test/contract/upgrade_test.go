package contract

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

func TestUpgrade(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		image := s.push("app:v1", 100_000, 2)
		if s.engine == "embedded" {
			if _, err := s.change("upgrade", "registry:3"); err == nil || !strings.Contains(err.Error(), "runs no image") {
				t.Errorf("the embedded engine took an image: %v", err)
			}
			return
		}
		old, next := s.cfg.Image, images.RegistryNext(t)
		runs := func(image string) {
			t.Helper()
			r := s.registry()
			if r.GetImage() != image || len(r.GetReplicas()) != 2 {
				t.Errorf("image %s with %d replicas, want %s", r.GetImage(), len(r.GetReplicas()), image)
			}
			for _, replica := range r.GetReplicas() {
				if replica.GetImage() != image || replica.GetState() != "serving" {
					t.Errorf("replica %v, want one of %s", replica, image)
				}
			}
			s.until("Docker runs "+image, func() error { return s.runs(image) })
		}
		runs(old)
		s.must("upgrade", next)
		runs(next)
		must(t, s.pull("app:v1", image))
		s.end()
		s.cfg.Settings = []server.Setting{{Key: "registry-image", Value: old, Origin: "flag"}}
		s.start() // with the old image in its configuration
		runs(next)
		s.shows(next, "upgrade")
		if !strings.Contains(s.logs.String(), "the image of the last upgrade counts") {
			t.Error("nothing in the log says that the configured image does not count")
		}
		if kept, err := server.ReadKept(s.cfg.DataDir, old); err != nil || kept.Upgraded != next || kept.Engine != "docker" || kept.Volume == "" {
			t.Errorf("kept are %+v (%v), want an upgrade to %s", kept, err, next)
		}
		must(t, s.pull("app:v1", image))

		// One that never answers well, one that cannot start, one that is not there: back
		// by itself.
		for _, bad := range []string{images.Sick(t), images.Foreign(t), "trustcast-test/no-such-image:1"} {
			_, err := s.change("upgrade", bad)
			if err == nil || !strings.Contains(err.Error(), "serves with "+next+" as before") {
				t.Errorf("upgrade to %s: %v", bad, err)
			}
			runs(next)
			must(t, s.pull("app:v1", image))
		}
		s.must("upgrade", images.Debian28(t)) // an older release on the same data
		runs(images.Debian28(t))
		must(t, s.pull("app:v1", image))
		s.push("app:v28", 10_000, 1)
		s.must("upgrade", old)
		runs(old)
		s.shows(old, "flag")
		must(t, s.pull("app:v1", image))
	})
}

// runs is nil when Docker says that the replicas are two of this image.
func (s *site) runs(image string) error {
	args := append([]string{"inspect", "--format", "{{.Image}} {{.State.Status}}"}, s.containers()...)
	out, err := exec.Command("docker", args...).Output()
	if err != nil {
		return err // one was removed meanwhile
	}
	id, err := exec.Command("docker", "image", "inspect", "--format", "{{.Id}}", image).Output()
	must(s.t, err)
	if want := strings.Repeat(strings.TrimSpace(string(id))+" running\n", 2); string(out) != want {
		return fmt.Errorf("containers %q, want %q", out, want)
	}
	return nil
}
