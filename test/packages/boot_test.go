//go:build linux

package packages

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// watchdog is what the units' WatchdogSec= is here: shorter than people would wait, and
// long enough for a busy machine.
const watchdog = 8 * time.Second

// testWatchdog stops both main processes as a kernel or a debugger would: they are there
// and do nothing. systemd must end them and start them again.
func (p *place) testWatchdog(t *testing.T) {
	units := []string{"trustcast", "trustcast-agent"}
	for _, unit := range units {
		p.dropIn(t, unit, fmt.Sprintf("[Service]\nWatchdogSec=%v\nRestartSec=100ms\n", watchdog))
	}
	p.sh(t, "systemctl reset-failed trustcast trustcast-agent; systemctl restart trustcast trustcast-agent")
	begin, lived := time.Now(), map[string]string{}
	for _, unit := range units {
		lived[unit] = p.show(t, unit, "MainPID")
	}
	// Control: nobody is killed who does what he should.
	until(t, time.Minute, "three periods of the watchdog", func() (bool, string) { return time.Since(begin) > 3*watchdog, "" })
	for _, unit := range units {
		if now, again := p.show(t, unit, "MainPID"), p.show(t, unit, "NRestarts"); now != lived[unit] || again != "0" {
			t.Errorf("%s was process %s and is %s after three periods of the watchdog, started again %s times", unit, lived[unit], now, again)
		}
	}
	begin = time.Now()
	p.sh(t, "kill -STOP "+lived["trustcast"]+" "+lived["trustcast-agent"])
	for _, unit := range units {
		until(t, 90*time.Second, unit+" started again", func() (bool, string) {
			pid, again, state := p.show(t, unit, "MainPID"), p.show(t, unit, "NRestarts"), p.show(t, unit, "ActiveState")
			return pid != lived[unit] && again != "0" && state == "active", fmt.Sprintf("process %s, started again %s times, %s", pid, again, state)
		})
		t.Logf("%s is ready again %v after it was stopped", unit, time.Since(begin).Round(time.Millisecond))
		if out := p.sh(t, "journalctl --no-pager -o cat -u "+unit); !strings.Contains(out, "Watchdog timeout") {
			t.Errorf("%s: it was not the watchdog:\n%s", unit, out)
		}
	}
	p.trusted(t)
	for _, unit := range units {
		p.dropIn(t, unit, "")
	}
}

// testBoot switches the machine off, spoils the CA and switches it on again, with the
// engine enabled and the server away.
func (p *place) testBoot(t *testing.T) {
	if !p.engine {
		t.Skip("needs docker.io's dockerd, docker and units, and containerd, on a Debian like the one that is booted")
	}
	const kept = "/root/at-start.crt"
	want := p.sh(t, "cat "+caFile)
	p.dropIn(t, "docker", `[Service]
Environment="DOCKER_OPTS=--storage-driver=vfs --bridge=none --iptables=false --ip6tables=false"
ExecStartPre=-/bin/cp `+caFile+` `+kept+"\n")
	p.sh(t, "systemctl disable --quiet trustcast; systemctl enable --quiet docker.service docker.socket containerd.service")

	// Control, and a promise too: the order is no requirement. Whoever waits for an agent
	// that never is ready waits for its TimeoutStartSec=.
	p.dropIn(t, "trustcast-agent", "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\nTimeoutStartSec=2s\n")
	p.off(t)
	must(t, os.Remove(p.root+caFile))
	p.boot(t)
	p.active(t, "docker.service", "active")
	if out, err := p.shell("cat "+kept, ""); err == nil {
		t.Errorf("the agent did nothing, and when the engine started there was a CA:\n%s", out)
	}

	// Slower than any engine: without an order it would be late.
	p.dropIn(t, "trustcast-agent", "[Service]\nExecStartPre=/bin/sleep 1\n")
	p.off(t)
	must(t, os.WriteFile(p.root+caFile, []byte("spoilt"), 0o644))
	must(t, os.Remove(p.root+carolsCA))
	p.boot(t)
	p.active(t, "docker.service", "active")
	p.active(t, "trustcast.service", "inactive")
	if have := p.sh(t, "cat "+kept); have != want {
		t.Errorf("when the engine started, the CA was\n%s", have)
	}
	p.sh(t, "cmp "+caFile+" "+carolsCA)
	var ready, started uint64
	stamps := p.show(t, "trustcast-agent", "ActiveEnterTimestampMonotonic") + " " + p.show(t, "docker", "ExecMainStartTimestampMonotonic")
	if _, err := fmt.Sscan(stamps, &ready, &started); err != nil || ready == 0 || ready > started {
		t.Errorf("agent ready and engine started at %s µs: %v", stamps, err)
	}
	t.Logf("agent ready at %d µs, the engine's start at %d µs", ready, started)
	p.testEngine(t)

	p.dropIn(t, "docker", "")
	p.dropIn(t, "trustcast-agent", "")
	p.sh(t, `systemctl disable --quiet --now docker.service docker.socket containerd.service; systemctl enable --quiet trustcast
umount /var/lib/docker # dockerd mounts it on itself
rm -rf /var/lib/docker /var/lib/containerd /opt/containerd /etc/cni /etc/docker/key.json `+kept)
}

// testEngine has the engine of the place push and pull, with the server back.
func (p *place) testEngine(t *testing.T) {
	const image = "registry.example.com:5000/team/boot:1"
	p.sh(t, "systemctl start trustcast")
	p.trusted(t)
	p.sh(t, `printf a-password-of-dave | trustcast user add dave --password-stdin
cd /root; export DOCKER_CONFIG=/tmp/client
tar -c -h /etc/hostname 2>/dev/null | docker import - `+image+`
printf a-password-of-dave | docker login --username dave --password-stdin registry.example.com:5000
docker push --quiet `+image+`; docker image rm `+image+`; docker pull --quiet `+image+`
trustcast user rm dave`)
}

// dropIn changes settings of a unit; "" takes them back.
func (p *place) dropIn(t *testing.T, unit, settings string) {
	t.Helper()
	dir := "/etc/systemd/system/" + unit + ".service.d"
	if settings == "" {
		p.sh(t, "rm -r "+dir+"; systemctl daemon-reload")
		return
	}
	_, err := p.shell("mkdir -p "+dir+"; cat >"+dir+"/test.conf; systemctl daemon-reload", settings)
	must(t, err)
}

// show is a property of a service.
func (p *place) show(t *testing.T, unit, property string) string {
	t.Helper()
	return strings.TrimSpace(p.sh(t, "systemctl show --property "+property+" --value "+unit+".service"))
}

// takeEngine copies this machine's engine and Debian's units of it into the place, where
// nothing is enabled. It is false where there is none, or one for another system.
func (p *place) takeEngine(t *testing.T) bool {
	t.Helper()
	programs := []string{"/usr/sbin/dockerd", "/usr/bin/docker", "/usr/bin/containerd", "/usr/sbin/runc"}
	files := append([]string{"/lib/systemd/system/docker.service", "/lib/systemd/system/docker.socket", "/lib/systemd/system/containerd.service"}, programs...)
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return false
		}
	}
	libraries := strings.Fields(run(t, "sh", "-c", "ldd "+strings.Join(programs, " ")+" 2>/dev/null | grep -o '[[:space:]]/[^ ]*' | sort -u"))
	run(t, append(append([]string{"cp", "--dereference", "--no-clobber", "--parents"}, append(files, libraries...)...), p.root)...)
	_, err := p.shell("groupadd --system docker; ldconfig; dockerd --version && docker --version && containerd --version", "")
	if err != nil {
		t.Logf("this machine's engine does not run in a minimal Debian: %v", err)
	}
	return err == nil
}
