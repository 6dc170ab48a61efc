//go:build linux

package fleet_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trustcast/trustcast/test/images"
)

// pushTries is how often a client pushes before the push counts as lost.
const pushTries = 5

// push is what an engine pushed, by the digest that the registry told it, and by
// what it was made of.
type push struct{ digest, id string }

// push pushes one new image after the other from a host's engine.
func (l *life) push(h *host, lane int) {
	for n := 0; !l.ended(); n++ {
		image := fmt.Sprintf("%s/life/%s:v%d", domain, h.name, n)
		if err := l.pushOne(h, image, lane); err != nil {
			l.failed("push of %s is lost: %v", image, err)
		}
	}
}

func (l *life) pushOne(h *host, image string, lane int) error {
	content, err := random.Image(layerBytes, 2)
	if err != nil {
		return err
	}
	archive := l.f.run.path("push-" + strconv.Itoa(lane) + ".tar")
	tag, err := name.NewTag("life/new:" + h.name)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(archive, tag, content); err != nil {
		return err
	}
	for try := range pushTries {
		if err = h.push(archive, tag.String(), image); err == nil {
			break
		}
		if try == 0 {
			l.did("pushes retried")
		}
	}
	if err != nil {
		return err
	}
	digest, err := h.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", image)
	if err != nil {
		return err
	}
	_, of, found := strings.Cut(strings.TrimSpace(digest), "@")
	if !found {
		return fmt.Errorf("the engine knows no digest of %s: %s", image, digest)
	}
	id, err := content.ConfigName()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.pushed[image] = push{digest: of, id: id.String()}
	l.counts["pushes"]++
	l.mu.Unlock()
	_, err = h.docker("image", "rm", "--force", image, tag.String())
	return err
}

// compare pulls everything that was pushed, whole, by its digest.
func (l *life) compare(t *testing.T) {
	t.Helper()
	for image, p := range l.pushed {
		if err := whole(l.client, image, p); err != nil {
			t.Errorf("%s@%s was pushed and cannot be pulled: %v", image, p.digest, err)
		}
	}
}

// whole pulls an image by its tag, which must lead to what was pushed, with all
// layers.
func whole(transport http.RoundTripper, image string, pushed push) error {
	ref, err := name.ParseReference(image)
	if err != nil {
		return err
	}
	got, err := remote.Image(ref, remote.WithTransport(transport), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	if err != nil {
		return err
	}
	if d, err := got.Digest(); err != nil || d.String() != pushed.digest {
		return fmt.Errorf("the tag names %s (%w)", d, err)
	}
	if id, err := got.ConfigName(); err != nil || id.String() != pushed.id {
		return fmt.Errorf("it is the image %s, made was %s (%w)", id, pushed.id, err)
	}
	return images.Whole(got)
}
