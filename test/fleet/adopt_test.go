//go:build linux

package fleet_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/internal/plain"
	"github.com/trustcast/trustcast/test/images"
)

const (
	adoptHosts = 2
	oldVolume  = "registry-data"
	oldName    = "registry"
	// ourFile is where an agent installs beside a ca.crt that it did not write.
	ourFile = "trustcast-ca.crt"
	// awayLimit is for the slowest machine: the switch-over takes half a second, and
	// six seconds on two cores that other tests kept busy. That the old registry did
	// not have to be killed, after Docker's ten seconds, is asked by itself.
	awayLimit = 30 * time.Second
	// pullLeast is what a pull takes that meets nobody: two starts of the client. More
	// such pulls than fit into the switch-over have failed for something else.
	pullLeast = 50 * time.Millisecond
)

// adoption is a plain registry that becomes ours.
type adoption struct {
	f      *fleet
	old    *host // the engine of the server's machine, with the old registry
	pair   plain.Pair
	image  string   // of the old registry
	volume string   // the directory of its data
	engine []string // of the new one
}

// TestAdoption takes over the volume of a plain registry container, with users and a
// certificate that signed itself, while hosts that trust that certificate pull all the
// time: from before the first day to after the first rotation no pull fails, but those
// that met nobody between the old registry's stop and the new one's start, which are
// counted.
func TestAdoption(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("adoption: " + why)
	}
	t.Parallel()
	image := images.Registry(t)
	t.Run("embedded", func(t *testing.T) { adopt(t, image) })
	t.Run("docker", func(t *testing.T) { adopt(t, image, "--engine", "docker") })
}

// adopt plays an adoption by a server with one of the engines.
func adopt(t *testing.T, image string, engine ...string) {
	begin := time.Now()
	a := &adoption{image: image, engine: engine}
	a.f = newFleet(t, adoptHosts)
	a.startOld(t)
	must(t, until(time.Minute, "the old registry", func() (bool, string) {
		conn, err := net.DialTimeout("tcp", a.f.server.listen(registryPort), time.Second)
		if err != nil {
			return false, err.Error()
		}
		return conn.Close() == nil, "closing failed"
	}))
	a.f.refusedEverywhere(t)
	a.trustByHand(t)

	var e excuses
	loops := startExcused(appImage, a.f.hosts, &e)
	t.Cleanup(loops.halt)
	loops.waitMore(t, 2)
	steps := a.takeOver(t)
	loops.waitMore(t, 2) // the old registry runs on
	away := a.switchOver(t, steps, &e)
	loops.waitMore(t, 3)
	a.join(t)
	loops.waitMore(t, 2)
	a.rotate(t)
	loops.waitMore(t, 3)
	pulls := loops.end(t, &a.f.sum)
	a.without(t)
	a.excusedLittle(t, away, loops.excused["switch-over"])
	t.Logf("adoption %v: pulls attempted %d, failed %d; nobody answered for %v at the switch-over, pulls that met nobody: %d; %v in all",
		engine, pulls, len(loops.failed()), away.Round(time.Millisecond), loops.excused["switch-over"], time.Since(begin).Round(time.Second))
}

// startOld runs a plain registry in a container on the server's machine.
func (a *adoption) startOld(t *testing.T) {
	t.Helper()
	f := a.f
	a.old = f.serverEngine(t, a.image)
	_, err := a.old.docker("volume", "create", oldVolume)
	must(t, err)
	a.volume, err = a.old.docker("volume", "inspect", "--format", "{{.Mountpoint}}", oldVolume)
	must(t, err)
	a.volume = strings.TrimSpace(a.volume)
	a.pair, err = plain.SelfSigned(plain.Options{}, "registry.test")
	must(t, err)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	must(t, err)
	must(t, plain.Write(a.volume, a.pair, user+":"+string(hash)+"\n", ""))
	_, err = a.old.docker("run", "--detach", "--name", oldName, "--restart", "always", "--network", "host", "--volume", oldVolume+":/var/lib/registry",
		"--env", markEnv+"="+f.run.name(), "--env", "OTEL_TRACES_EXPORTER=none", "--env", "REGISTRY_HTTP_ADDR="+f.server.listen(registryPort),
		"--env", "REGISTRY_HTTP_TLS_CERTIFICATE=/var/lib/registry/certs/domain.crt", "--env", "REGISTRY_HTTP_TLS_KEY=/var/lib/registry/certs/domain.key",
		"--env", "REGISTRY_AUTH=htpasswd", "--env", "REGISTRY_AUTH_HTPASSWD_REALM=old", "--env", "REGISTRY_AUTH_HTPASSWD_PATH=/var/lib/registry/auth/htpasswd",
		a.image)
	must(t, err)
}

// trustByHand copies the old certificate to each host, as people do, and pushes what
// will be pulled.
func (a *adoption) trustByHand(t *testing.T) {
	t.Helper()
	must(t, a.f.each(func(h *host) error {
		if err := os.MkdirAll(filepath.Dir(h.certFile()), 0o755); err != nil {
			return err
		}
		return os.WriteFile(h.certFile(), a.pair.CA, 0o644)
	}))
	must(t, a.f.each(func(h *host) error { return h.login(domain, user, password) }))
	must(t, a.f.hosts[0].push(a.f.run.path("image.tar"), loadedImage, appImage))
	_, err := a.f.hosts[0].docker("image", "rm", "--force", loadedImage, appImage)
	must(t, err)
}

// printedStep is a line of what init says about the switch-over.
var printedStep = regexp.MustCompile(`(?m)^  \d+\. (docker .*)$`)

// takeOver runs init while the old registry serves, and returns the commands that it
// prints for the old one.
func (a *adoption) takeOver(t *testing.T) []string {
	t.Helper()
	s := a.f.server
	s.dataDir = a.f.run.path("data")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	argv := []string{"sh", "-c", `exec "$@" 2>&1`, "sh", a.f.run.path("bin", "trustcast"), "init", "--domain", domain, "--adopt", "volume:" + oldVolume, "--data-dir", s.dataDir}
	out, err := a.f.run.output(ctx, a.old.dockerHost(), "", append(argv, a.engine...)...)
	must(t, err)
	t.Logf("init:\n%s", out)
	var steps []string
	for _, m := range printedStep.FindAllStringSubmatch(out, -1) {
		steps = append(steps, m[1])
	}
	if len(steps) != 2 || !strings.Contains(out, "users         1") || !strings.Contains(out, "repositories  1") {
		t.Fatalf("init did not find the running container, its user or its image: %q", steps)
	}
	return steps
}

// switchOver does what was printed and starts the server. It returns for how long
// nobody listened.
func (a *adoption) switchOver(t *testing.T, steps []string, e *excuses) time.Duration {
	t.Helper()
	end := e.begin("", "switch-over")
	from := time.Now()
	for _, step := range steps {
		_, err := a.old.docker(strings.Fields(step)[1:]...)
		must(t, err)
	}
	if code, err := a.old.docker("inspect", "--format", "{{.State.ExitCode}}", oldName); err != nil || strings.TrimSpace(code) == "137" {
		t.Errorf("the old registry did not end at SIGTERM: exit code %s (%v)", code, err)
	}
	args := a.engine
	if len(args) > 0 {
		args = append(slices.Clone(args), "--registry-image", a.image)
	}
	must(t, a.f.server.start("trustcast", readByReplicas(a.old.dockerHost()), args...))
	end()
	away := time.Since(from)
	st, err := a.f.server.status()
	must(t, err)
	if st.Generation.String() != "0" {
		t.Errorf("generation %s on the first day", st.Generation)
	}
	return away
}

// excusedLittle wants the switch-over to be short, and no more pulls to be excused than
// can have met nobody meanwhile: one under way on each host, and then one after the other.
func (a *adoption) excusedLittle(t *testing.T, away time.Duration, excused int) {
	t.Helper()
	if away > awayLimit {
		t.Errorf("nobody answered for %v at the switch-over, want %v at most", away, awayLimit)
	}
	if most := len(a.f.hosts) * (1 + int(away/pullLeast)); excused > most {
		t.Errorf("%d pulls met nobody within %v, want %d at most", excused, away, most)
	}
}

// join starts the agents; the file that was copied by hand stays as it is.
func (a *adoption) join(t *testing.T) {
	t.Helper()
	for _, h := range a.f.hosts {
		token, err := a.f.server.command("token", "create", "-q")
		must(t, err)
		must(t, h.startAgent("--join", "registry.test:"+grpcPort, "--token", strings.TrimSpace(token), "--name", h.name))
	}
	a.f.waitTrusted(t, time.Minute)
	for _, h := range a.f.hosts {
		if now, err := os.ReadFile(h.certFile()); err != nil || string(now) != string(a.pair.CA) {
			t.Errorf("%s: the file copied by hand was touched: %v", h.name, err)
		}
	}
}

// linger is what pulls get that began before their host had the new CA; here one
// takes a few seconds.
const linger = 30 * time.Second

// rotate does the first rotation. It must not switch before linger is over.
func (a *adoption) rotate(t *testing.T) {
	t.Helper()
	begin := time.Now()
	n := a.f.beginRotation(t, "--deadline", linger.String())
	must(t, a.f.server.wait(4*time.Minute, "end of the first rotation", func(st status) bool { return st.number() == n && a.f.trusted(st) }))
	switched, err := a.f.server.phaseTime(n, "switched")
	must(t, err)
	t.Logf("first rotation: switch after %v, idle after %v", switched.Sub(begin).Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	if early := switched.Sub(begin); early < linger {
		t.Errorf("the switch came after %v: pulls that began with the old certificate alone had not %v", early, linger)
	}
}

// without is the control of the end: a host that has the old certificate alone fails.
func (a *adoption) without(t *testing.T) {
	t.Helper()
	h := a.f.hosts[0]
	must(t, h.stopAgent(syscall.SIGTERM))
	must(t, os.Remove(filepath.Join(filepath.Dir(h.certFile()), ourFile)))
	if err := h.pull(appImage); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("%s with the old certificate alone, after the rotation: %v, want an x509 error", h.name, err)
	}
	st, err := a.f.server.status()
	must(t, err)
	if st.Generation.String() != "2" {
		t.Errorf("generation %s after the first rotation", st.Generation)
	}
}
