//go:build linux

package fleet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

// engineOverridden is overridden where the registry runs in containers of its own: the
// machine's engine is another one than this host's, whose socket takes its place.
const engineOverridden = overridden + `    volumes:
      - %s:/var/run/docker.sock
`

// testOwnContainers is the story once more, with deploy/compose.docker-engine.yaml as
// its head says: the server makes the registry's containers through the socket.
func (c *composed) testOwnContainers(t *testing.T) {
	h := c.registry
	// Of the registry that was destroyed before this machine's agent left.
	must(t, os.RemoveAll(filepath.Join(h.certsDir(), howToRegistry)))
	image := images.Registry(t)
	images.Load(t, h.socket(), image)
	c.line(t, h, "docker tag "+image+" registry:3") // what the file asks for
	override := fmt.Sprintf(engineOverridden, strings.TrimPrefix(h.socket(), "unix://"))
	must(t, os.WriteFile(filepath.Join(c.deploy(h), "compose.override.yaml"), []byte(override), 0o600))
	c.line(t, h, "echo COMPOSE_FILE=compose.yaml:compose.docker-engine.yaml:compose.override.yaml >>.env")
	if config := c.line(t, h, "docker-compose config"); strings.Contains(config, " /var/run/docker.sock:") {
		t.Fatalf("the server would get the machine's own engine:\n%s", config)
	}

	c.makeRegistry(t)
	c.replicas(t, 2)
	c.block(t, h, "server", 1)
	token, err := os.ReadFile(filepath.Join(c.deploy(h), "token"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.deploy(c.other), "token"), token, 0o600))
	c.block(t, c.other, "host", 0)
	c.settle(t)
	for _, h := range c.fleet.hosts {
		must(t, h.login(howToRegistry, "ci", c.password))
	}
	must(t, h.push(c.fleet.run.path("image.tar"), loadedImage, composedImage))
	c.line(t, h, "docker image rm --force "+loadedImage)
	c.pull(t)
	c.testEveryDay(t)
	c.testReplaced(t)
	c.replicas(t, 2)

	c.block(t, c.other, "host", 1)
	c.line(t, h, "docker-compose exec -T server /trustcast registry stop")
	c.replicas(t, 0)
	c.line(t, h, "docker-compose down -v")
	c.nothingLeft(t)
}

// makeRegistry starts the server and joins its machine, from the how-to's second line on.
func (c *composed) makeRegistry(t *testing.T) {
	t.Helper()
	lines := strings.Split(c.blocks["server"][0], "\n")
	c.line(t, c.registry, lines[1])
	must(t, until(time.Minute, lines[2], func() (bool, string) {
		out, err := c.try(c.registry, lines[2])
		c.password = strings.TrimSpace(out)
		return err == nil && c.password != "", fmt.Sprint(err)
	}))
	for _, line := range lines[3:] {
		c.line(t, c.registry, line)
	}
}

// replicas wants that many containers of the registry's own, and none with a network.
func (c *composed) replicas(t *testing.T, want int) {
	t.Helper()
	var networks []string
	must(t, until(time.Minute, fmt.Sprintf("%d replicas", want), func() (bool, string) {
		out, err := c.try(c.registry, "docker ps --all --filter label=io.trustcast.domain="+howToRegistry+" --format '{{.Networks}}'")
		networks = strings.Fields(out)
		return err == nil && len(networks) == want, fmt.Sprint(out, err)
	}))
	for _, n := range networks {
		if n != "none" {
			t.Errorf("a replica is in the network %s", n)
		}
	}
}
