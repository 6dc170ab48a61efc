//go:build linux

package fleet_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSwarm follows docs/how-to/swarm.md with deploy/swarm.yaml on a Swarm of one machine: an engine of its own in a
// namespace of its own, since the machine's engine shall stay out of any Swarm.
func TestSwarm(t *testing.T) {
	t.Parallel()
	if why := missing(); why != "" {
		t.Skip("swarm: " + why)
	}
	begin := time.Now()
	f := newFleet(t, 1)
	s := &swarm{fleet: f, host: f.hosts[0]}
	_, err := f.server.command("init", "--domain", domain)
	must(t, err)
	must(t, f.server.start("trustcast", nil))
	_, err = f.server.commandInput(password, "user", "add", user, "--password-stdin")
	must(t, err)
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"without an agent the registry is refused", s.testRefused},
		{"the stack brings an agent that joins", s.testDeployed},
		{"a rotation goes through", s.testRotated},
		{"the agent's container is replaced", s.testReplaced},
		{"nothing is left", s.testTakenAway},
	}
	for _, step := range steps {
		if !t.Run(step.name, step.do) {
			out, err := s.host.docker("service", "ps", "--no-trunc", "trustcast_agent")
			logs, _ := command("docker", "--host", s.host.socket(), "service", "logs", "trustcast_agent")
			t.Log(out, logs, err, f.report())
			break // each builds on the one before
		}
	}
	t.Logf("swarm: pulls %d, failed %d; %v in all", f.sum.pulls, f.sum.failed, time.Since(begin).Round(time.Second))
}

// swarm is a fleet whose one agent is in a Swarm's service.
type swarm struct {
	fleet *fleet
	host  *host
	lines []pageLine // of the page, that are still to be run
}

func (s *swarm) testRefused(t *testing.T) {
	if err := s.host.login(domain, user, password); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Fatalf("login without the CA: %v, want an x509 error", err)
	}
}

// testDeployed follows the page up to the stack.
func (s *swarm) testDeployed(t *testing.T) {
	f, h := s.fleet, s.host
	begin := time.Now()
	s.makeImage(t)
	t.Logf("image after %v", time.Since(begin).Round(time.Second))
	_, err := h.docker("swarm", "init", "--advertise-addr", h.addr, "--listen-addr", h.addr)
	must(t, err)
	s.readPage(t)
	s.follow(t, "server", "manager")
	t.Logf("deployed after %v", time.Since(begin).Round(time.Second))
	f.waitFor(t, h)
	t.Logf("trusted after %v", time.Since(begin).Round(time.Second))
	must(t, h.login(domain, user, password))
	must(t, h.push(f.run.path("image.tar"), loadedImage, appImage))
	f.pull(t, h)
	spec, err := h.docker("service", "inspect", "--format", "{{json .Spec}}", "trustcast_agent")
	must(t, err)
	for _, wrong := range []string{"docker.sock", "tc1."} {
		if strings.Contains(spec, wrong) {
			t.Errorf("the service has %q: %s", wrong, spec)
		}
	}
	if !strings.Contains(spec, `"ReadOnly":true`) || !strings.Contains(spec, `"CapabilityDrop":["ALL"]`) {
		t.Errorf("the service may do more than it needs: %s", spec)
	}
}

// makeImage builds the agent's image as deploy/Dockerfile does. The classic builder goes
// through the server's, too, which nobody uses here: a file in place of the program is quicker.
func (s *swarm) makeImage(t *testing.T) {
	t.Helper()
	context := s.fleet.run.path("image")
	must(t, os.MkdirAll(filepath.Join(context, "bin"), 0o755))
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", "grpcnotrace", "-o", filepath.Join(context, "bin")+"/", "./cmd/trustcast-agent")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0") // the image has no libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	must(t, os.WriteFile(filepath.Join(context, "bin", "trustcast"), nil, 0o600))
	file, err := os.ReadFile(filepath.Join("..", "..", "deploy", "Dockerfile"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(context, "Dockerfile"), file, 0o600))
	_, err = s.host.docker("build", "--quiet", "--target", "agent", "--tag", "trustcast/agent:latest", context)
	must(t, err)
}

// readPage takes the page's lines, and makes what its reader has: the file, and both
// programs that it calls on the server's machine. There is one machine: ssh stays on it.
func (s *swarm) readPage(t *testing.T) {
	t.Helper()
	s.lines = linesOf(t, onSwarm)
	file, err := os.ReadFile(filepath.Join("..", "..", "deploy", "swarm.yaml"))
	must(t, err)
	must(t, os.WriteFile(s.host.path("swarm.yaml"), file, 0o600))
	must(t, os.Mkdir(s.host.path("tools"), 0o755))
	for name, script := range map[string]string{
		"ssh":       "shift; exec \"$@\"",
		"trustcast": "exec " + s.fleet.run.path("bin", "trustcast") + " \"$@\" --data-dir " + s.fleet.server.dataDir,
	} {
		must(t, os.WriteFile(s.host.path("tools", name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
}

// follow runs the page's next blocks, one for each of these places. The page's registry
// has another name here.
func (s *swarm) follow(t *testing.T, places ...string) {
	t.Helper()
	for _, where := range places {
		if len(s.lines) == 0 || s.lines[0].where != where {
			t.Fatalf("the page's next block is not run on the %s: %v", where, s.lines)
		}
		for block := s.lines[0].block; len(s.lines) > 0 && s.lines[0].block == block; {
			line := s.lines[0].line
			s.lines = s.lines[1:]
			_, err := s.fleet.run.output(t.Context(), []string{"DOCKER_HOST=" + s.host.socket(), "DOCKER_CONFIG=" + s.host.path("client")}, "",
				"timeout", "120", "bash", "-o", "pipefail", "-c", "PATH="+s.host.path("tools")+":$PATH; cd "+s.host.path()+"; "+strings.ReplaceAll(line, howToName, "registry.test"))
			must(t, err)
		}
	}
}

// waitFor waits until the only host is trusted, whatever it is called.
func (f *fleet) waitFor(t *testing.T, h *host) {
	t.Helper()
	must(t, f.server.wait(90*time.Second, h.name+"'s machine trusted and idle", func(st status) bool {
		return len(st.Hosts) == 1 && st.Hosts[0].State == "trusted" && st.Hosts[0].Fingerprint == st.Fingerprint && st.Rotation.Phase == "idle"
	}))
}

func (s *swarm) testRotated(t *testing.T) {
	before, err := os.ReadFile(s.host.certFile())
	must(t, err)
	s.fleet.beginRotation(t, "--wait")
	s.fleet.waitFor(t, s.host)
	after, err := os.ReadFile(s.host.certFile())
	must(t, err)
	if string(before) == string(after) {
		t.Error("the CA is the one of before the rotation")
	}
	s.fleet.pull(t, s.host)
}

// testReplaced is what a new image does: the identity is in the volume.
func (s *swarm) testReplaced(t *testing.T) {
	before, err := s.host.docker("ps", "--quiet")
	must(t, err)
	_, err = s.host.docker("service", "update", "--quiet", "--force", "--update-monitor", "1s", "trustcast_agent")
	must(t, err)
	if after, err := s.host.docker("ps", "--quiet"); err != nil || after == before {
		t.Errorf("the container is the one of before: %s (%v)", after, err)
	}
	s.fleet.waitFor(t, s.host)
	s.fleet.pull(t, s.host)
}

// testTakenAway follows the end of the page.
func (s *swarm) testTakenAway(t *testing.T) {
	h := s.host
	s.follow(t, "manager")
	must(t, until(time.Minute, "no container", func() (bool, string) {
		out, err := h.docker("ps", "--all", "--quiet")
		return err == nil && out == "", fmt.Sprint(out, err)
	}))
	s.follow(t, "machine")
	if _, err := os.Stat(h.certFile()); err == nil {
		t.Error("the CA is there after leaving")
	}
	if err := h.login(domain, user, password); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("login after leaving: %v, want an x509 error", err)
	}
	if len(s.lines) > 0 {
		t.Errorf("the page goes on, and nobody runs it: %v", s.lines)
	}
	_, err := h.docker("swarm", "leave", "--force")
	must(t, err)
}
