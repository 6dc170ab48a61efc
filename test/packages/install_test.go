//go:build linux

package packages

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	caFile = "/etc/docker/certs.d/registry.example.com:5000/ca.crt"
	// carolsCA is in the home of a user with a Docker of her own.
	carols     = "/home/carol/.config/docker"
	carolsCA   = carols + "/certs.d/registry.example.com:5000/ca.crt"
	foreignCA  = "/etc/docker/certs.d/other.example.com/ca.crt"
	agentWants = "/etc/systemd/system/multi-user.target.wants/trustcast-agent.service"
)

// TestInstall is the life of both packages on a minimal Debian with systemd: installed,
// a registry made, the host joined, upgraded, removed, purged, and nothing left.
func TestInstall(t *testing.T) {
	needRoot(t)
	need(t, "nsenter", "unshare", "ip", "chroot", "find")
	begin := time.Now()
	old := makeDebs(t, "v0.1.0")
	next := makeDebs(t, "v0.1.0-1-g0a1b2c3")
	t.Logf("packages after %v", time.Since(begin).Round(time.Second))
	p := debian(t)
	t.Logf("a Debian that has booted after %v", time.Since(begin).Round(time.Second))
	for _, deb := range []string{old.server, old.agent, next.server, next.agent} {
		p.take(t, deb)
	}
	p.sh(t, "mkdir -p "+filepath.Dir(foreignCA)+"; echo foreign >"+foreignCA+"; useradd --create-home carol; su carol -c 'mkdir -p "+carols+"'")
	p.engine = p.takeEngine(t)
	// What these do at a time of day would be taken for what the packages have left.
	p.sh(t, "systemctl mask --now --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer || true")
	before := p.files(t)

	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"installed, the agent waits and the server does nothing", func(t *testing.T) { p.install(t, old); p.testInstalled(t) }},
		{"a registry is made and the host joins", p.testJoin},
		{"the agent is ready without a server", p.testAlone},
		{"a restart refuses no connection", p.testRestart},
		{"what is stopped stays so", p.testStopped},
		{"another port, with and without the socket", p.testPort},
		{"a process that hangs is started again", p.testWatchdog},
		{"a boot gives the CA to Docker, without a server", p.testBoot},
		{"an upgrade keeps settings, data and identity", func(t *testing.T) { p.testUpgrade(t, next) }},
		{"removed, the CA and the data stay", func(t *testing.T) { p.testRemoved(t, next) }},
		{"a purge that cannot leave says so, and can be repeated", p.testDamaged},
		{"purged, nothing is left", func(t *testing.T) { p.testPurged(t, before) }},
	}
	for _, s := range steps {
		if !t.Run(s.name, s.do) {
			out, err := p.shell("systemctl --no-pager --full status 'trustcast*' || true; journalctl --no-pager -n 60 -o short-monotonic || true", "")
			t.Log(out, err)
			break // each builds on the one before
		}
	}
	t.Logf("installed, upgraded, removed and purged: %v in all", time.Since(begin).Round(time.Second))
}

// debs are the packages of one version.
type debs struct{ server, agent string }

func makeDebs(t *testing.T, version string) debs {
	t.Helper()
	server, agent := packagesOf(t, version, t.TempDir())
	return debs{server, agent}
}

func (p *place) install(t *testing.T, d debs) {
	t.Helper()
	p.sh(t, "cd /root; dpkg -i "+filepath.Base(d.server)+" "+filepath.Base(d.agent))
}

// active waits until a unit is, or is not.
func (p *place) active(t *testing.T, unit, want string) {
	t.Helper()
	until(t, 40*time.Second, unit+" "+want, func() (bool, string) {
		out, err := p.shell("systemctl is-active "+unit+" || true", "")
		return out == want+"\n", fmt.Sprint(out, err)
	})
}

func (p *place) testInstalled(t *testing.T) {
	for _, name := range []string{
		"/usr/bin/trustcast", "/usr/bin/trustcast-agent", "/usr/share/man/man1/trustcast-agent.1.gz",
		"/usr/share/bash-completion/completions/trustcast", "/usr/share/zsh/vendor-completions/_trustcast-agent", "/usr/share/fish/vendor_completions.d/trustcast.fish",
		"/usr/share/doc/trustcast/copyright", "/usr/share/doc/trustcast-agent/changelog.gz", agentWants,
	} {
		if _, err := os.Lstat(p.path(name)); err != nil {
			t.Errorf("not there after the installation: %v", err)
		}
	}
	conffiles := p.sh(t, "dpkg-query -W -f '${Conffiles}' trustcast trustcast-agent")
	for _, name := range []string{"/etc/trustcast/config.yaml", "/etc/default/trustcast-agent"} {
		if !strings.Contains(conffiles, name) {
			t.Errorf("dpkg does not know %s as a configuration file: %s", name, conffiles)
		}
	}
	if modes := p.sh(t, "stat -c '%a %U:%G' /etc/trustcast/config.yaml /etc/default/trustcast-agent"); modes != strings.Repeat("640 root:root\n", 2) {
		t.Errorf("the settings, in which secrets may be, have modes and owners %q", modes)
	}
	p.sh(t, "dpkg --verify trustcast trustcast-agent")
	p.active(t, "trustcast-agent.service", "active")
	for _, unit := range []string{"trustcast.service", "trustcast-registry.socket"} {
		p.active(t, unit, "inactive")
	}
	if failed := p.sh(t, "systemctl list-units --failed --plain --no-legend 'trustcast*'"); failed != "" {
		t.Errorf("failed before anything was done: %s", failed)
	}
}

// testJoin does what a new operator does, with the server on the same machine.
func (p *place) testJoin(t *testing.T) {
	p.sh(t, "trustcast init --domain registry.example.com --user ci; systemctl start trustcast")
	p.active(t, "trustcast.service", "active")
	p.sh(t, "systemctl is-active trustcast-registry.socket trustcast-grpc.socket trustcast-http.socket")
	p.sh(t, "sed -i s/^#TRUSTCAST_GOSSIP_LISTEN=/TRUSTCAST_GOSSIP_LISTEN=/ /etc/default/trustcast-agent; systemctl restart trustcast-agent")
	if _, err := os.Stat(p.path(caFile)); err == nil {
		t.Error("the CA is there before the host has joined")
	}
	begin := time.Now()
	p.sh(t, "trustcast token create -q | trustcast-agent join registry.example.com:7443 --token-file - --name web-1")
	p.wantCA(t)
	p.trusted(t)
	// The sandbox lets the agent become her, and nobody else's files may lie in her home.
	if got := p.sh(t, "stat -c '%U %a' "+carolsCA+"; cmp "+carolsCA+" "+caFile); got != "carol 644\n" {
		t.Errorf("carol's CA has owner and mode %q", got)
	}
	t.Logf("joined and trusted after %v", time.Since(begin).Round(time.Millisecond))
	p.rotate(t)
	if ended := p.sh(t, "systemctl show --property NRestarts --value trustcast trustcast-agent"); strings.Trim(ended, "0\n") != "" {
		t.Errorf("systemd had to start something again: %s", ended)
	}
}

// trusted waits until the server has the host's evidence, over the agent's own stream.
func (p *place) trusted(t *testing.T) {
	t.Helper()
	until(t, 3*time.Minute, "web-1 trusted", func() (bool, string) {
		out, err := p.shell("trustcast host ls", "")
		return err == nil && strings.Contains(out, "trusted"), fmt.Sprint(out, err)
	})
}

func (p *place) rotate(t *testing.T) {
	t.Helper()
	p.sh(t, "timeout 170 trustcast ca rotate --wait --yes")
	p.wantCA(t)
}

func (p *place) wantCA(t *testing.T) {
	t.Helper()
	if have, want := p.sh(t, "cat "+caFile), p.sh(t, "trustcast ca export -"); have != want {
		t.Errorf("installed is the CA\n%s, exported was\n%s", have, want)
	}
}

// testAlone starts the agent as at boot, where somebody has spoilt the CA and no server
// answers: it is ready with the CA mended.
func (p *place) testAlone(t *testing.T) {
	want := p.sh(t, "cat "+caFile)
	p.sh(t, "systemctl stop trustcast-agent 'trustcast*.socket' trustcast; echo spoilt >"+caFile)
	begin := time.Now()
	p.sh(t, "systemctl start trustcast-agent") // returns when it is ready
	t.Logf("ready without a server after %v", time.Since(begin).Round(time.Millisecond))
	if have := p.sh(t, "cat "+caFile); have != want {
		t.Errorf("the agent is ready, and the CA is\n%s", have)
	}
	p.sh(t, "systemctl start trustcast")
	p.trusted(t)
}

// testRestart connects all the time while the server restarts; without the sockets some
// connection is refused.
func (p *place) testRestart(t *testing.T) {
	with, refused := p.connect(t, "systemctl restart trustcast")
	if refused > 0 {
		t.Errorf("%d of %d connections were refused during a restart", refused, with)
	}
	if with <= 20 {
		t.Errorf("only %d connections were tried during a restart: the test sees too little", with)
	}
	without, control := p.connect(t, "systemctl stop 'trustcast*.socket' trustcast; systemctl start --no-block trustcast.service; sleep 0.1")
	if control == 0 {
		t.Errorf("of %d connections none was refused while nobody listened: the test sees nothing", without)
	}
	t.Logf("a restart: %d connections, %d refused; without sockets %d of %d refused", with, refused, control, without)
	p.active(t, "trustcast.service", "active")
	p.trusted(t)
}

// testStopped: the agent goes on trying, and nothing starts the server again. While its
// sockets were left open a connection did, see testAlone.
func (p *place) testStopped(t *testing.T) {
	refusals := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(p.sh(t, "journalctl -u trustcast-agent -o cat --no-pager | grep -c 'connection refused' || true")))
		must(t, err)
		return n
	}
	before := refusals()
	p.sh(t, "systemctl reset-failed trustcast; systemctl stop trustcast")
	for _, port := range []string{"5000", "7443", "7480"} { // systemctl waits for the service alone; its sockets follow
		until(t, 10*time.Second, "port "+port+" is closed", func() (bool, string) {
			out, err := p.shell("bash -c '(exec 3<>/dev/tcp/127.0.0.1/"+port+")'", "")
			return err != nil, out
		})
	}
	until(t, 40*time.Second, "the agent tries in vain", func() (bool, string) { n := refusals(); return n > before, fmt.Sprint(n) })
	if out := p.sh(t, "systemctl is-active trustcast.service || true"); out != "inactive\n" {
		t.Errorf("the stopped server is %s", out)
	}
	if _, err := p.shell("trustcast status", ""); err == nil || !strings.Contains(err.Error(), "systemctl start trustcast") {
		t.Errorf("status of a stopped server: %v", err)
	}
	p.sh(t, "systemctl start trustcast; systemctl is-active trustcast-registry.socket trustcast-grpc.socket trustcast-http.socket")
	p.trusted(t)
}

// testPort follows the page on packages where another port is concerned.
func (p *place) testPort(t *testing.T) {
	const again = "systemctl reset-failed trustcast; " // more often than a service may
	p.sh(t, again+"echo TRUSTCAST_LISTEN=:5443 >/etc/default/trustcast; systemctl restart trustcast")
	p.active(t, "trustcast.service", "active")
	if out := p.sh(t, "journalctl -u trustcast -o cat --no-pager"); !strings.Contains(out, "--listen does not count") {
		t.Errorf("nobody says that the socket has the port:\n%s", out)
	}
	if out := p.sh(t, "trustcast config show"); !regexp.MustCompile(`(?m)^listen +\[::\]:5000 +systemd$`).MatchString(out) {
		t.Errorf("config show has another address:\n%s", out)
	}
	p.sh(t, again+"systemctl mask --now --quiet trustcast-registry.socket; systemctl restart trustcast; exec bash -c '(exec 3<>/dev/tcp/127.0.0.1/5443)'")
	if _, err := p.shell("exec bash -c '(exec 3<>/dev/tcp/127.0.0.1/5000)'", ""); err == nil {
		t.Error("port 5000 is open although its socket is masked")
	}
	p.sh(t, again+"rm /etc/default/trustcast; systemctl stop trustcast; systemctl unmask --quiet trustcast-registry.socket; systemctl start trustcast")
	p.trusted(t)
}

// connect opens connections to the registry until a script has ended.
func (p *place) connect(t *testing.T, script string) (all, refused int) {
	t.Helper()
	out := p.sh(t, `rm -f /run/done; (`+script+`; touch /run/done) >/dev/null 2>&1 &
exec bash -c 'all=0; refused=0
until [ -e /run/done ]; do (exec 3<>/dev/tcp/registry.example.com/5000) 2>/dev/null || refused=$((refused+1)); all=$((all+1)); done
echo $all $refused'`)
	if _, err := fmt.Sscan(out, &all, &refused); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return all, refused
}

func (p *place) testUpgrade(t *testing.T, next debs) {
	p.sh(t, "echo 'gone-after: 11m' >>/etc/trustcast/config.yaml")
	pid := p.sh(t, "systemctl show --property MainPID --value trustcast trustcast-agent")
	p.install(t, next)
	for _, unit := range []string{"trustcast.service", "trustcast-agent.service"} {
		p.active(t, unit, "active")
	}
	if now := p.sh(t, "systemctl show --property MainPID --value trustcast trustcast-agent"); now == pid {
		t.Error("the programs of before still run after the upgrade")
	}
	if got := p.sh(t, "dpkg-query -W -f '${Version}' trustcast-agent"); got != "0.1.0+git1.0a1b2c3" {
		t.Errorf("after the upgrade there is version %q", got)
	}
	p.sh(t, "grep -x 'gone-after: 11m' /etc/trustcast/config.yaml; trustcast config show | grep 'gone-after.*11m'")
	p.trusted(t)
	p.rotate(t)

	p.sh(t, "systemctl disable --quiet trustcast-agent")
	p.install(t, next)
	if _, err := os.Lstat(p.path(agentWants)); err == nil {
		t.Error("the agent was disabled, and is enabled after an installation")
	}
	p.sh(t, "systemctl enable --quiet trustcast-agent")
}

func (p *place) testRemoved(t *testing.T, next debs) {
	installed := p.sh(t, "cat "+caFile)
	p.sh(t, "dpkg -r trustcast trustcast-agent")
	if have := p.sh(t, "cat "+caFile); have != installed {
		t.Errorf("the CA is another one after the removal:\n%s", have)
	}
	for _, unit := range []string{"trustcast.service", "trustcast-registry.socket", "trustcast-agent.service"} {
		p.active(t, unit, "inactive")
	}
	p.sh(t, "test -e /var/lib/trustcast/state -a -e /var/lib/trustcast-agent/identity.json -a ! -e /usr/bin/trustcast-agent")
	p.install(t, next)
	p.active(t, "trustcast.service", "active")
	p.trusted(t)
	p.rotate(t)
}

// testDamaged: what tells which files are the agent's must not be lost in a purge.
func (p *place) testDamaged(t *testing.T) {
	p.sh(t, "dpkg -r trustcast-agent; mv /var/lib/trustcast-agent/owned.json /root/; echo nonsense >/var/lib/trustcast-agent/owned.json")
	if _, err := p.shell("dpkg -P trustcast-agent", ""); err == nil || !strings.Contains(err.Error(), "purge again") {
		t.Errorf("a purge with damaged state: %v", err)
	}
	p.sh(t, "mv /root/owned.json /var/lib/trustcast-agent/; test -e "+caFile)
}

func (p *place) testPurged(t *testing.T, before map[string]string) {
	p.sh(t, "dpkg -P trustcast trustcast-agent")
	after := p.files(t)
	for name, had := range before {
		if after[name] != had {
			t.Errorf("%s was %s, and is now %q", name, had, after[name])
		}
	}
	for name, has := range after {
		if before[name] == "" {
			t.Errorf("left: %s, %s", name, has)
		}
	}
	t.Logf("%d files and directories are as before", len(after))
}

// unwatched is what dpkg and systemd themselves change, and this test.
var unwatched = []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/var/tmp", "/var/lib/dpkg", "/var/log", "/var/cache", "/var/lib/systemd/timers", "/var/lib/systemd/random-seed"}

// files describes all files of a place.
func (p *place) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	root := p.path("/")
	must(t, filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root)
		if err != nil || slices.Contains(unwatched, name) {
			if err == nil && d.IsDir() {
				err = fs.SkipDir
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[name] = info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[name] += fmt.Sprintf(" %x", sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			all[name] += " " + to
		}
		return nil
	}))
	return all
}
