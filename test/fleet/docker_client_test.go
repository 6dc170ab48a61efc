//go:build linux

package fleet_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trustcast/trustcast/test/images"
)

// packedLayers of packedLayerBytes make an image of 200 MB. Docker packs it for the
// push; more layers cost the engine's storage, which keeps each with all below it.
const packedLayers, packedLayerBytes = 4, 50_000_000

// client is Docker on a host with an agent at one registry, and on one without.
type client struct {
	*lane
	engine        string
	images        [2]string // of the registry on Docker: that of its start, and another
	host, without *host
}

// TestDockerClient pushes and pulls with docker itself at a registry of each engine: an
// image of 200 MB, and one for two platforms. What is pulled is what was made, and had
// been removed from the host before.
func TestDockerClient(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("docker's own client: " + why)
	}
	t.Parallel()
	replicas := [2]string{images.Registry(t), images.RegistryNext(t)}
	f := newFleet(t, 2)
	for i, engine := range []string{"embedded", "docker"} {
		t.Run(engine, func(t *testing.T) {
			c := &client{f.newLane(i), engine, replicas, f.hosts[0], f.hosts[1]}
			t.Cleanup(func() { must(t, c.end()) })
			c.start(t)
			c.testLarge(t)
			c.testHeld(t)
			c.testPlatforms(t)
			c.refused(t, c.without)
			must(t, c.host.pull(c.image()))
		})
	}
}

// start makes the registry, shows that both hosts refuse it, and joins one of them.
func (c *client) start(t *testing.T) {
	t.Helper()
	begin := time.Now()
	init := []string{"init", "--domain", c.domain, "--user", "engine", "--password-stdin", "--engine", c.engine}
	var args []string
	if c.engine == "docker" {
		init = append(init, "--volume", c.f.run.name())
		args = []string{"--replicas", "2", "--registry-image", c.images[0]}
	}
	_, err := c.server.commandInput(password+"\n", init...)
	must(t, err)
	must(t, c.server.start("trustcast", readByReplicas(nil), args...))
	c.refused(t, c.host)
	c.refused(t, c.without)
	c.join(t, c.host)
	must(t, c.host.login(c.domain, "engine", password))
	t.Logf("%s: ready after %v", c.engine, time.Since(begin).Round(time.Millisecond))
}

func (c *client) end() error {
	if c.agent != nil {
		if err := c.agent.terminate(); err != nil {
			return err
		}
	}
	return c.server.stop()
}

// refused wants all that Docker does on the host to fail since it does not trust the
// certificate.
func (c *client) refused(t *testing.T, h *host) {
	t.Helper()
	for what, err := range map[string]error{
		"login": h.login(c.domain, "engine", password),
		"pull":  h.pull(c.image()),
		"push":  h.push(c.f.run.path("image.tar"), loadedImage, c.domain+"/refused:v1"),
	} {
		if err == nil || !strings.Contains(err.Error(), "x509") {
			t.Fatalf("%s: %s without the CA: %v, want an x509 error", h.name, what, err)
		}
	}
}

func (c *client) large() string { return c.domain + "/large:v1" }

// testLarge pushes a large image and pulls it again.
func (c *client) testLarge(t *testing.T) {
	made, err := random.Image(packedLayerBytes, packedLayers)
	must(t, err)
	image := c.large()
	c.load(t, made, image)
	begin := time.Now()
	_, err = c.host.dockerWithin(largeBound, "", "push", "--quiet", image)
	must(t, err)
	pushed := time.Since(begin)
	want := c.known(t, image, made)
	blobs, err := c.server.blobGets()
	must(t, err)
	must(t, c.host.forget(image))
	begin = time.Now()
	must(t, c.host.fetchLarge(image))
	pulled := time.Since(begin)
	if got := c.known(t, image, made); got != want {
		t.Errorf("pulled %s, pushed %s", got, want)
	}
	after, err := c.server.blobGets()
	must(t, err)
	if after-blobs < packedLayers+1 {
		t.Errorf("the edge served %d blobs for a pull of %d layers", after-blobs, packedLayers)
	}
	must(t, c.host.forget(image))
	mb := float64(packedLayers*packedLayerBytes) / 1e6
	t.Logf("%s: %.0f MB in %d layers; pushed in %v, %.1f MB/s; pulled in %v, %.1f MB/s", c.engine, mb, packedLayers,
		pushed.Round(time.Millisecond), mb/pushed.Seconds(), pulled.Round(time.Millisecond), mb/pulled.Seconds())
}

// load gives the host's engine an image under this name alone.
func (c *client) load(t *testing.T, made v1.Image, image string) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag(image)
	must(t, err)
	must(t, tarball.WriteToFile(archive, tag, made))
	_, err = c.host.dockerWithin(largeBound, "", "load", "--quiet", "--input", archive)
	must(t, err)
	must(t, os.Remove(archive))
}

// known is the digest at the registry of an image that the host's engine has, which must
// be what was made: its ID is a hash over the digests of all that is in it.
func (c *client) known(t *testing.T, image string, made v1.Image) (digest string) {
	t.Helper()
	out, err := c.host.docker("image", "inspect", "--format", "{{.Id}} {{range .RepoDigests}}{{.}} {{end}}", image)
	must(t, err)
	id, err := made.ConfigName()
	must(t, err)
	fields := strings.Fields(out)
	if len(fields) != 2 || fields[0] != id.String() {
		t.Fatalf("%s is %q, made was %s", image, fields, id)
	}
	_, digest, found := strings.Cut(fields[1], "@")
	if !found {
		t.Fatalf("%s has no digest: %q", image, fields)
	}
	return digest
}

// testPlatforms pushes an index and lets Docker choose from it.
func (c *client) testPlatforms(t *testing.T) {
	own, other := runtime.GOARCH, "arm64"
	if own == other {
		other = "amd64"
	}
	image := c.domain + "/multi:v1"
	made := map[string]v1.Image{}
	create := []string{"manifest", "create", image}
	for _, arch := range []string{other, own} {
		made[arch] = c.pushFor(t, arch)
		create = append(create, c.domain+"/multi:"+arch)
	}
	c.manifest(t, create...)
	digest := c.manifest(t, "manifest", "push", "--purge", image)
	for arch, args := range map[string][]string{own: nil, other: {"--platform", "linux/" + other}} {
		_, err := c.host.docker(append(append([]string{"pull", "--quiet"}, args...), image)...)
		must(t, err)
		if got := c.known(t, image, made[arch]); got != digest {
			t.Errorf("the index for %s is %s, pushed was %s", arch, got, digest)
		}
		must(t, c.host.forget(image))
	}
	t.Logf("%s: an index for %s and %s, %s: Docker on %s chose its own, and the other when asked for it", c.engine, own, other, digest, own)
}

// pushFor pushes an image for one platform, and removes it from the host.
func (c *client) pushFor(t *testing.T, arch string) v1.Image {
	t.Helper()
	plain, err := random.Image(layerBytes, 2)
	must(t, err)
	config, err := plain.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	made, err := mutate.ConfigFile(plain, config)
	must(t, err)
	image := c.domain + "/multi:" + arch
	c.load(t, made, image)
	_, err = c.host.dockerWithin(largeBound, "", "push", "--quiet", image)
	must(t, err)
	c.known(t, image, made)
	must(t, c.host.forget(image))
	return made
}

// manifest runs docker where its own part of the work, which asks no engine, sees the
// host's certs.d; it returns what it printed.
func (c *client) manifest(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullBound)
	defer cancel()
	argv := append(c.host.enter(), "docker", "--config", c.host.path("client"), "--host", c.host.socket())
	out, err := c.f.run.output(ctx, nil, "", append(argv, args...)...)
	must(t, err)
	return strings.TrimSpace(out)
}
