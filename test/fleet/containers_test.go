//go:build linux

package fleet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// howToName and howToRegistry are the registry's as docs/how-to/run-in-containers.md
	// calls it.
	howToName     = "registry.example.com"
	howToRegistry = howToName + ":" + registryPort
	composedImage = howToRegistry + "/fleet/app:v1"
)

// TestContainers is somebody who follows docs/how-to/run-in-containers.md on two
// machines, line by line: the first has the registry and an agent in containers,
// the second an agent.
func TestContainers(t *testing.T) {
	t.Parallel()
	why := missing()
	for _, tool := range []string{"docker-compose", "make", "git"} {
		if _, err := exec.LookPath(tool); err != nil && why == "" {
			why = "not installed: " + tool
		}
	}
	if why != "" {
		t.Skip("containers: " + why)
	}
	begin := time.Now()
	c := newComposed(t)
	t.Logf("docker-compose %s", strings.TrimSpace(c.line(t, c.registry, "docker-compose version --short")))
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"images hold one static program and nothing else", c.testImages},
		{"the registry starts, and is refused without an agent", c.testRegistry},
		{"hosts join, push and pull", c.testJoin},
		{"containers have no privileges", c.testPrivileges},
		{"a rotation goes through", c.testEveryDay},
		{"a backup is restored", c.testRestored},
		{"a container is replaced", c.testReplaced},
		{"certs.d is made anew", c.testMovedDirectory},
		{"nothing is left", c.testTakeAway},
		{"the registry runs in containers of its own, and nothing is left", c.testOwnContainers},
	}
	for _, s := range steps {
		if !t.Run(s.name, s.do) {
			t.Log(c.report())
			break // each builds on the one before
		}
	}
	t.Logf("containers: %d hosts, pulls %d, failed %d; %v in all", len(c.fleet.hosts), c.fleet.sum.pulls, c.fleet.sum.failed, time.Since(begin).Round(time.Second))
}

// composed is a fleet of which all is in containers.
type composed struct {
	fleet    *fleet
	registry *host // has the server too
	other    *host
	blocks   map[string][]string // of the how-to, by where they are run
	password string
}

func newComposed(t *testing.T) *composed {
	f := emptyFleet(t)
	c := &composed{fleet: f, blocks: howToBlocks(t)}
	must(t, writeImage(f.run.path("image.tar")))
	must(t, f.makeNetwork())
	must(t, f.makeHosts(2, fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", f.run.addr(hostAddr+1), howToName)))
	c.registry, c.other = f.hosts[0], f.hosts[1]
	for _, h := range f.hosts {
		// Two machines of one name here: they are told apart as the how-to says.
		must(t, os.MkdirAll(c.deploy(h), 0o755))
		for _, name := range []string{"compose.yaml", "compose.docker-engine.yaml"} {
			compose, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(c.deploy(h), name), compose, 0o600))
		}
		must(t, os.WriteFile(filepath.Join(c.deploy(h), "compose.override.yaml"), []byte(overridden), 0o600))
	}
	return c
}

// overridden is what an operator may add, with a tick that is short enough for a test.
const overridden = `services:
  server:
    environment:
      TRUSTCAST_TICK: 2s
`

// deploy is a host's copy of the directory deploy.
func (c *composed) deploy(h *host) string { return h.path("deploy") }

func (c *composed) testRegistry(t *testing.T) {
	lines := strings.Split(c.blocks["server"][0], "\n")
	c.line(t, c.registry, lines[0])
	c.line(t, c.registry, lines[1])
	// Somebody who types needs longer than the server; a test does not.
	must(t, until(30*time.Second, lines[2], func() (bool, string) {
		out, err := c.try(c.registry, lines[2])
		c.password = strings.TrimSpace(out)
		return err == nil && c.password != "", fmt.Sprint(err)
	}))
	if log := c.line(t, c.registry, "docker-compose logs server 2>&1"); strings.Contains(log, c.password) {
		t.Error("the password is in the container's log")
	}
	for _, h := range c.fleet.hosts {
		if err := h.login(howToRegistry, "ci", c.password); err == nil || !strings.Contains(err.Error(), "x509") {
			t.Errorf("%s: login without the CA: %v, want an x509 error", h.name, err)
		}
	}
	engine := c.line(t, c.registry, "COMPOSE_FILE=compose.yaml:compose.docker-engine.yaml docker-compose config")
	for _, want := range []string{"- --engine\n", "- data:/var/lib/trustcast", "- /var/run/docker.sock:/var/run/docker.sock", "- DAC_OVERRIDE\n"} {
		if !strings.Contains(engine, want) {
			t.Errorf("with compose.docker-engine.yaml there is no %q in\n%s", want, engine)
		}
	}
	// The rest of the block: an agent here.
	for _, line := range lines[3:] {
		c.line(t, c.registry, line)
	}
}

func (c *composed) testJoin(t *testing.T) {
	c.block(t, c.registry, "server", 1)
	for _, name := range []string{".env", "token"} {
		data, err := os.ReadFile(filepath.Join(c.deploy(c.registry), name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(c.deploy(c.other), name), data, 0o600))
	}
	c.withoutCompose(t)
	c.block(t, c.other, "host", 0)
	c.settle(t)
	for _, h := range c.fleet.hosts {
		must(t, h.login(howToRegistry, "ci", c.password))
	}
	must(t, c.registry.push(c.fleet.run.path("image.tar"), loadedImage, composedImage))
	c.pull(t)
}

// withoutCompose joins the other host by `docker run` alone, and has it leave again.
func (c *composed) withoutCompose(t *testing.T) {
	c.block(t, c.other, "plain", 0)
	c.settle(t)
	must(t, c.other.login(howToRegistry, "ci", c.password))
	lines := strings.Split(c.blocks["plain"][0], "\n")
	c.line(t, c.other, "docker rm --force trustcast-agent")
	leave, _, _ := strings.Cut(lines[0], " join ")
	c.line(t, c.other, leave+" leave")
	c.line(t, c.other, "docker volume rm trustcast-agent")
	if err := c.other.login(howToRegistry, "ci", c.password); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("login after leaving: %v, want an x509 error", err)
	}
	st, err := c.status()
	must(t, err)
	for _, h := range st.Hosts {
		if h.Name != c.registry.name {
			c.line(t, c.registry, "docker-compose exec -T server /trustcast host rm "+h.Name)
		}
	}
}

// settle waits until both hosts are trusted and gossip reaches them.
func (c *composed) settle(t *testing.T) {
	t.Helper()
	c.line(t, c.registry, "docker-compose exec -T server /trustcast status --wait --timeout 1m")
	must(t, until(time.Minute, "both hosts trusted, over gossip too", func() (bool, string) {
		st, err := c.status()
		if err != nil {
			return false, err.Error()
		}
		ok := len(st.Hosts) == 2
		for _, h := range st.Hosts {
			ok = ok && h.State == "trusted" && h.Gossip == "ok" && h.Fingerprint == st.Fingerprint
		}
		return ok, fmt.Sprintf("%+v", st.Hosts)
	}))
}

func (c *composed) status() (status, error) {
	var st status
	out, err := c.try(c.registry, "docker-compose exec -T server /trustcast status -o json || test $? = 3")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// pull is one pull on each host.
func (c *composed) pull(t *testing.T) {
	t.Helper()
	for _, h := range c.fleet.hosts {
		c.fleet.sum.pulls++
		if err := h.pull(composedImage); err != nil {
			c.fleet.sum.failed++
			t.Errorf("%s: %v", h.name, err)
		}
	}
}

func (c *composed) testEveryDay(t *testing.T) {
	before, err := c.status()
	must(t, err)
	c.block(t, c.registry, "server", 2)
	c.settle(t)
	after, err := c.status()
	must(t, err)
	if after.number() != before.number()+1 || after.Serving.Issuer == before.Serving.Issuer {
		t.Errorf("rotation %d, served by %s; before it was %d and %s", after.number(), after.Serving.Issuer, before.number(), before.Serving.Issuer)
	}
	exported, err := os.ReadFile(filepath.Join(c.deploy(c.registry), "ca.crt"))
	must(t, err)
	for _, h := range c.fleet.hosts {
		c.wantCA(t, h, exported)
	}
	c.pull(t)
}

// wantCA compares what Docker reads on a host.
func (c *composed) wantCA(t *testing.T, h *host, want []byte) {
	t.Helper()
	have, err := os.ReadFile(filepath.Join(h.certsDir(), howToRegistry, "ca.crt"))
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("%s has the CA\n%s(%v), exported was\n%s", h.name, have, err, want)
	}
}

// testRestored has the registry as the backup has it: a user of later is gone.
func (c *composed) testRestored(t *testing.T) {
	lines := strings.Split(c.blocks["server"][3], "\n")
	c.line(t, c.registry, lines[0])
	c.line(t, c.registry, "docker-compose exec -T server /trustcast user add later")
	info, err := os.Stat(filepath.Join(c.deploy(c.registry), "registry.tar"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the backup: %v", info.Mode())
	}
	for _, line := range lines[1:4] {
		c.line(t, c.registry, line)
	}
	must(t, until(time.Minute, lines[4], func() (bool, string) {
		_, err := c.try(c.registry, lines[4])
		return err == nil, fmt.Sprint(err)
	}))
	c.settle(t)
	if users := strings.TrimSpace(c.line(t, c.registry, "docker-compose exec -T server /trustcast user ls")); users != "ci" {
		t.Errorf("users %q after the restore", users)
	}
	c.pull(t)
}

// testReplaced is what a new image does: other containers on the same volumes.
func (c *composed) testReplaced(t *testing.T) {
	before := c.line(t, c.registry, "docker-compose ps -q")
	c.line(t, c.registry, "docker-compose up -d --force-recreate")
	if after := c.line(t, c.registry, "docker-compose ps -q"); after == before {
		t.Fatalf("the containers are the same: %s", after)
	}
	c.healthy(t)
	c.settle(t)
	c.pull(t)
}

// healthy waits until Docker calls every container so.
func (c *composed) healthy(t *testing.T) {
	t.Helper()
	for _, h := range c.fleet.hosts {
		must(t, until(2*time.Minute, "healthy containers on "+h.name, func() (bool, string) {
			out, err := c.try(h, "docker inspect --format '{{.State.Health.Status}}' $(docker-compose ps -q)")
			return err == nil && strings.ReplaceAll(out, "healthy\n", "") == "", fmt.Sprint(out, err)
		}))
	}
}

// testMovedDirectory takes certs.d away from below the agent, whose container must
// see the new one.
func (c *composed) testMovedDirectory(t *testing.T) {
	h := c.other
	want, err := os.ReadFile(filepath.Join(h.certsDir(), howToRegistry, "ca.crt"))
	must(t, err)
	// At one moment: an agent that saw no certs.d would make it, and remove it at leave.
	must(t, os.Mkdir(h.certsDir()+".old", 0o755))
	must(t, unix.Renameat2(unix.AT_FDCWD, h.certsDir(), unix.AT_FDCWD, h.certsDir()+".old", unix.RENAME_EXCHANGE))
	must(t, until(time.Minute, "the CA in the new certs.d", func() (bool, string) {
		have, err := os.ReadFile(filepath.Join(h.certsDir(), howToRegistry, "ca.crt"))
		return slices.Equal(have, want), fmt.Sprint(err)
	}))
	c.pull(t)
}

// testTakeAway leaves with the host, and destroys the registry.
func (c *composed) testTakeAway(t *testing.T) {
	c.block(t, c.other, "host", 1)
	c.line(t, c.registry, "docker-compose down -v")
	if entries := directory(c.other.certsDir()); entries != "0 entries" {
		t.Errorf("certs.d of %s after leaving: %s", c.other.name, entries)
	}
	c.nothingLeft(t)
}

// nothingLeft wants no container, volume or network on any engine.
func (c *composed) nothingLeft(t *testing.T) {
	t.Helper()
	for _, h := range c.fleet.hosts {
		left := c.line(t, h, "docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom")
		if left != "" {
			t.Errorf("left on %s: %s", h.name, left)
		}
	}
}
