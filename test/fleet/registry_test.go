//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trustcast/trustcast/test/images"
)

const (
	lifeHosts                              = 3
	wantRestarts, wantUpgrades, wantSweeps = 20, 10, 10
	// killEvery is about how often a replica is killed.
	killEvery = 3 * time.Second
	// wantPulls is the least on each host.
	wantPulls = 10
	// pushTries is how often a client pushes before the push counts as lost.
	pushTries = 5
)

// life is a registry whose replicas are replaced, killed and swept behind while
// real engines pull and push.
type life struct {
	f      *fleet
	images [2]string // to upgrade to, back and forth
	client *http.Transport
	stop   chan struct{}
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	counts   tally
	pushed   map[string]string // digest by image
	failures []string
}

// TestRegistryLife restarts, upgrades and sweeps a registry on Docker, and kills its
// replicas, while three engines pull and push: no pull fails, no push is lost.
func TestRegistryLife(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("registry's life: " + why)
	}
	l := &life{stop: make(chan struct{}), counts: tally{}, pushed: map[string]string{}}
	l.images = [2]string{images.Registry(t), images.RegistryNext(t)}
	begin := time.Now()
	l.f = newFleet(t, lifeHosts)
	volume := l.f.run.name()
	_, err := l.f.server.commandInput(password+"\n", "init", "--domain", domain, "--user", user, "--password-stdin", "--engine", "docker", "--volume", volume)
	must(t, err)
	args := []string{"--replicas", "2", "--registry-image", l.images[0]}
	must(t, l.f.server.start("trustcast", nil, args...))
	l.f.refusedEverywhere(t)
	l.f.testJoin(t)

	l.client, err = newClient(filepath.Join(l.f.server.dataDir, "certs", "ca.crt"), l.f.server.listen(registryPort))
	must(t, err)
	defer l.client.CloseIdleConnections()
	loops := startPulls(appImage, l.f.hosts)
	for i, h := range l.f.hosts {
		l.wg.Go(func() { l.push(h, i) })
	}
	l.wg.Go(l.kill)
	l.change(t)
	close(l.stop)
	l.wg.Wait()
	loops.end(t, &l.f.sum)
	l.compare(t)
	t.Logf("registry's life: %v; pulls attempted %d, pulls failed %d, images pushed and pulled again %d; %v in all",
		l.counts, l.f.sum.pulls, l.f.sum.failed, len(l.pushed), time.Since(begin).Round(time.Second))
	for what, want := range map[string]int{"restarts": wantRestarts, "upgrades": wantUpgrades, "collections": wantSweeps, "replicas killed": 5, "pushes": 2 * wantSweeps, "blobs freed": wantSweeps} {
		if l.counts[what] < want {
			t.Errorf("%s: %d, want %d", what, l.counts[what], want)
		}
	}
	for name, n := range loops.counts() {
		if n < wantPulls {
			t.Errorf("%s pulled %d times, want %d", name, n, wantPulls)
		}
	}
	if len(l.pushed) < wantSweeps || l.counts["commands repeated"] > wantSweeps {
		t.Errorf("%d images were compared, %d commands repeated", len(l.pushed), l.counts["commands repeated"])
	}
	if len(l.failures) > 0 {
		t.Errorf("failures:\n%s", strings.Join(l.failures, "\n"))
	}
}

func (l *life) did(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

func (l *life) failed(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, time.Now().UTC().Format(time.RFC3339Nano)+" "+fmt.Sprintf(format, args...))
}

func (l *life) ended() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// change does what an operator does, as often as is wanted, in an order that mixes.
func (l *life) change(t *testing.T) {
	t.Helper()
	steps := []string{}
	for range wantSweeps {
		steps = append(steps, "restart", "upgrade", "restart", "gc")
	}
	upgrades := 0
	for i, step := range steps {
		do := func() error { return errors.Join(l.deleteOne(), l.collect(i%8 == 7)) }
		switch step {
		case "restart":
			do = func() error { return l.registry("restarts", "restart") }
		case "upgrade":
			upgrades++
			do = func() error { return l.registry("upgrades", "upgrade", "--image", l.images[upgrades%2]) }
		}
		err := do()
		if err != nil { // the replica that it waited for may have been killed
			t.Logf("repeated: %v", err)
			l.did("commands repeated")
			err = do()
		}
		if err != nil {
			l.failed("%s: %v", step, err)
		}
	}
}

func (l *life) registry(what string, args ...string) error {
	if _, err := l.f.server.command(append([]string{"registry"}, args...)...); err != nil {
		return err
	}
	l.did(what)
	return nil
}

// deleteOne deletes one of the images that were pushed, so that there is something
// to collect.
func (l *life) deleteOne() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for image, digest := range l.pushed {
		ref, err := name.ParseReference(strings.TrimSuffix(image, ":"+image[strings.LastIndex(image, ":")+1:]) + "@" + digest)
		if err != nil {
			return err
		}
		delete(l.pushed, image)
		return remote.Delete(ref, remote.WithTransport(l.client), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	}
	return nil
}

// collect sweeps; all: also what just came, so that a push may have to begin anew.
func (l *life) collect(all bool) error {
	args := []string{"registry", "gc", "--untagged"}
	if all {
		args = append(args, "--min-age", "0s")
	}
	var got struct{ Blobs, Spared int }
	if err := l.f.server.json(&got, args...); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts["collections"]++
	l.counts["blobs freed"] += got.Blobs
	return nil
}

// kill kills a replica now and then.
func (l *life) kill() {
	dice := rand.New(rand.NewPCG(1, 2))
	for !l.ended() {
		select {
		case <-l.stop:
			return
		case <-time.After(killEvery/2 + rand.N(killEvery)):
		}
		out, err := command("docker", "ps", "--quiet", "--filter", "volume="+l.f.run.name())
		replicas := strings.Fields(out)
		if err != nil || len(replicas) == 0 {
			continue
		}
		// It may have ended meanwhile.
		if _, err := command("docker", "kill", "--signal", "KILL", replicas[dice.IntN(len(replicas))]); err == nil {
			l.did("replicas killed")
		}
	}
}

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
	l.mu.Lock()
	l.pushed[image] = of
	l.counts["pushes"]++
	l.mu.Unlock()
	_, err = h.docker("image", "rm", "--force", image, tag.String())
	return err
}

// compare pulls everything that was pushed, whole, by its digest.
func (l *life) compare(t *testing.T) {
	t.Helper()
	for image, digest := range l.pushed {
		if err := whole(l.client, image, digest); err != nil {
			t.Errorf("%s@%s was pushed and cannot be pulled: %v", image, digest, err)
		}
	}
}

// whole pulls an image by its tag, which must be of this digest, with all layers.
func whole(transport http.RoundTripper, image, digest string) error {
	ref, err := name.ParseReference(image)
	if err != nil {
		return err
	}
	got, err := remote.Image(ref, remote.WithTransport(transport), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	if err != nil {
		return err
	}
	if d, err := got.Digest(); err != nil || d.String() != digest {
		return fmt.Errorf("the tag names %s (%w)", d, err)
	}
	layers, err := got.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, content) // which checks the digest
		if err := errors.Join(err, content.Close()); err != nil {
			return err
		}
	}
	_, err = got.RawConfigFile()
	return err
}
