//go:build linux

package fleet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// ownLayers gives a machine its own /etc, /usr and /var above those of the machine that
// the test runs on: packages are installed there and nowhere else. It is run in the
// mount namespace of its engine; the layers are in memory and go with it.
const ownLayers = `mount -t tmpfs tmpfs "$1/layers"
for d in etc usr var; do
	mkdir -p "$1/layers/$d" "$1/layers/work-$d"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=$1/layers/$d,workdir=$1/layers/work-$d" "/$d"
done
`

// tryLayers mounts what ownLayers does, in a mount namespace that ends with it.
const tryLayers = `mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc`

// TestTutorial is somebody who follows docs/tutorial/first-registry.md word by word on two
// machines that have nothing but Docker, takes all of it away, and follows the README and
// then the pages on air-gapped sites and on many registries.
// There is no service manager here: what it would start is read from the packages' units.
func TestTutorial(t *testing.T) {
	t.Parallel()
	why := missing()
	for _, tool := range []string{"make", "dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil && why == "" {
			why = "not installed: " + tool
		}
	}
	if why == "" {
		if _, err := command("unshare", "--mount", "--propagation", "private", "sh", "-ec", tryLayers); err != nil {
			why = "may not mount overlays: " + err.Error()
		}
	}
	if why != "" {
		t.Skip("tutorial: " + why)
	}
	begin := time.Now()
	f := newFollower(t)
	for _, s := range []struct {
		name string
		do   func(*testing.T)
	}{{"the tutorial", f.testTutorial}, {"nothing is left", f.testNothingLeft}, {"the README", f.testReadme},
		{"without the internet", f.testAirGapped}, {"many registries", f.testManyRegistries}} {
		if !t.Run(s.name, s.do) {
			t.Log(f.logs())
			break
		}
	}
	t.Logf("tutorial: %v in all", time.Since(begin).Round(time.Second))
}

func (f *follower) testTutorial(t *testing.T) {
	steps := linesOf(t, "../../docs/tutorial/first-registry.md")
	refused := 0
	for _, s := range steps {
		h := f.machines[s.where]
		if s.kind == "refused" {
			refused++
			if out, err := f.try(h, s.line); err == nil || !strings.Contains(out, "x509") {
				t.Fatalf("on %s, before it joined: %s: %v\n%s\nwant an x509 error", s.where, s.line, err, out)
			}
			continue
		}
		f.line(t, h, s.line)
		f.share(t, "password", "token")
	}
	if len(steps) < 20 || refused == 0 {
		t.Errorf("the tutorial has %d lines, of which %d are refused before the host joins", len(steps), refused)
	}
}

// joinToken is a token in a join line.
var joinToken = regexp.MustCompile(`tc1\.[^\s…]+`)

// testReadme is a new user: from bare machines to a pull in less than a minute.
func (f *follower) testReadme(t *testing.T) {
	server, host := f.machines["registry"], f.machines["web-1"]
	password, token := "", ""
	var began time.Time
	joined := time.Duration(0)
	for _, s := range linesOf(t, "../../README.md") {
		if s.where == "server" {
			if token != "" && !began.IsZero() && joined == 0 {
				joined = f.pullAsNew(t, host, password, began)
			}
			out := f.line(t, server, s.line)
			if _, after, ok := strings.Cut(out, "password "); ok && password == "" {
				password = strings.Fields(after)[0]
				must(t, os.WriteFile(host.path("home", "password"), []byte(password), 0o600))
			}
			token = joinToken.FindString(token + out)
			continue
		}
		if began.IsZero() {
			if err := host.login(howToRegistry, "ci", password); err == nil || !strings.Contains(err.Error(), "x509") {
				t.Fatalf("login without the CA: %v, want an x509 error", err)
			}
			began = time.Now()
		}
		f.line(t, host, strings.ReplaceAll(s.line, "tc1.…", token))
	}
	must(t, host.pull(composedImage))
	if joined == 0 || joined > time.Minute {
		t.Errorf("from the agent's package to a pull: %v", joined)
	}
	t.Logf("README: from the agent's package on a bare host to an image pulled: %v", joined.Round(10*time.Millisecond))
}

// pullAsNew signs in, pushes and pulls, and returns the time since the beginning.
func (f *follower) pullAsNew(t *testing.T, h *host, password string, began time.Time) time.Duration {
	t.Helper()
	must(t, h.login(howToRegistry, "ci", password))
	must(t, h.push(f.run.path("image.tar"), loadedImage, composedImage))
	must(t, h.pull(composedImage))
	return time.Since(began)
}

// madePackage is what `make deb` says that it made.
var madePackage = regexp.MustCompile(`(?m)^build/\S+\.deb$`)

// follower is somebody with two machines.
type follower struct {
	*fleet
	machines map[string]*host
	services []*process
}

func newFollower(t *testing.T) *follower {
	f := &follower{fleet: emptyFleet(t)}
	deb := exec.Command("make", "--no-print-directory", "deb")
	deb.Dir = filepath.Join("..", "..")
	making.Lock()
	out, err := deb.CombinedOutput()
	making.Unlock()
	packages := madePackage.FindAllString(string(out), -1)
	if err != nil || len(packages) != 2 {
		t.Fatalf("make deb: %v\n%s", err, out)
	}
	must(t, writeImage(f.run.path("image.tar")))
	must(t, f.makeNetwork())
	resolved := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", f.run.addr(hostAddr+1), howToName, f.run.addr(serverAddr), otherName)
	for i := range 2 {
		h, err := newHost(f.net, i+1, resolved)
		must(t, err)
		for _, dir := range []string{"layers", "home"} {
			must(t, os.Mkdir(h.path(dir), 0o755))
		}
		must(t, os.WriteFile(h.path("before.sh"), []byte(ownLayers), 0o600))
		f.hosts = append(f.hosts, h)
	}
	f.machines = map[string]*host{"registry": f.hosts[0], "web-1": f.hosts[1]}
	must(t, f.each(func(h *host) error { return h.startEngine() }))
	for _, p := range packages {
		data, err := os.ReadFile(filepath.Join("..", "..", p))
		must(t, err)
		for _, h := range f.hosts {
			must(t, os.WriteFile(h.path("home", filepath.Base(p)), data, 0o644))
		}
	}
	t.Cleanup(func() {
		for _, p := range f.services {
			if p.running() {
				must(t, p.terminate())
			}
		}
	})
	return f
}

// line runs one line of a shell on a machine, and what a service manager would do for it.
func (f *follower) line(t *testing.T, h *host, line string) (out string) {
	t.Helper()
	unit := ""
	switch {
	case strings.HasPrefix(line, "systemctl "):
		f.serve(t, h, "trustcast.service")
		return ""
	case strings.HasPrefix(line, "dpkg -i trustcast-agent"):
		unit = "trustcast-agent.service"
	case strings.HasPrefix(line, "dpkg --purge"):
		f.end(t, h)
	}
	bound := time.Duration(0)
	if strings.HasPrefix(line, "trustcast-agent status") {
		bound = 30 * time.Second // somebody who types is slower than the agent; a test is not
	}
	must(t, until(bound, "on "+h.name+": "+line, func() (bool, string) {
		var err error
		out, err = f.try(h, line)
		return err == nil, fmt.Sprintf("%v\n%s\n%s", err, out, f.logs())
	}))
	if unit != "" {
		f.serve(t, h, unit)
	}
	return out
}

// serve starts what a unit of an installed package says.
func (f *follower) serve(t *testing.T, h *host, unit string) {
	t.Helper()
	start, err := f.try(h, "sed -n 's/^ExecStart=//p' /lib/systemd/system/"+unit)
	if err != nil || start == "" {
		t.Fatalf("%s on %s: %v\n%s", unit, h.name, err, start)
	}
	p, err := f.run.start(h.name+"-service", f.env(h), append(h.enter(), strings.Fields(start)...)...)
	must(t, err)
	f.services = append(f.services, p)
	must(t, until(30*time.Second, unit+" is up", func() (bool, string) {
		out, err := f.try(h, map[string]string{
			"trustcast.service":       "trustcast status || test $? = 3",
			"trustcast-agent.service": "test -d /var/lib/trustcast-agent",
		}[unit])
		return err == nil, out + tail(p.log, 10)
	}))
}

// end stops the services of a machine.
func (f *follower) end(t *testing.T, h *host) {
	t.Helper()
	for _, p := range f.services {
		if strings.HasPrefix(p.name, h.name) && p.running() {
			must(t, p.terminate())
		}
	}
}

func (f *follower) env(h *host) []string {
	name := map[*host]string{f.hosts[0]: "registry", f.hosts[1]: "web-1"}[h]
	return []string{"DOCKER_HOST=" + h.socket(), "DOCKER_CONFIG=" + h.path("client"), "TRUSTCAST_NAME=" + name, "DEBIAN_FRONTEND=noninteractive"}
}

// try runs one line of a shell in a machine's namespaces and returns all that it printed.
func (f *follower) try(h *host, line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv := append(h.enter(), "bash", "-o", "pipefail", "-c", "cd "+h.path("home")+" && "+line)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = f.run.env(f.env(h)...)
	if strings.HasPrefix(line, "skopeo ") { // trustcast would take it for a setting of its registry
		cmd.Env = append(cmd.Env, "REGISTRY_AUTH_FILE="+h.path("client", "config.json"))
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// share is scp: pages have the reader copy files from the first machine to the second.
func (f *follower) share(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(f.hosts[0].path("home", name))
		if os.IsNotExist(err) {
			continue
		}
		must(t, err)
		must(t, os.WriteFile(f.hosts[1].path("home", name), data, 0o600))
	}
}

// testNothingLeft wants neither the CA nor the data of the agent nor those of the server.
func (f *follower) testNothingLeft(t *testing.T) {
	t.Helper()
	for _, h := range f.hosts {
		out, err := f.try(h, "ls -d /etc/docker/certs.d/* /var/lib/trustcast* /etc/trustcast* /usr/bin/trustcast* 2>/dev/null || true")
		if err != nil || out != "" {
			t.Errorf("left on %s: %s (%v)", h.name, out, err)
		}
	}
}

func (f *follower) logs() string {
	text := ""
	for _, p := range f.services {
		text += p.name + ":\n" + tail(p.log, 20) + "\n"
	}
	return text
}
