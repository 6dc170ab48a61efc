//go:build linux

package packages

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

// TestAnsibleSyntax has Ansible read the role.
func TestAnsibleSyntax(t *testing.T) {
	need(t, "ansible-playbook")
	run(t, "ansible-playbook", "-i", "localhost,", "--syntax-check", "deploy/ansible/site.yml")
}

// TestAnsible runs the role on a copy of this machine: the package is installed and the
// host joins; the second time nothing changes.
func TestAnsible(t *testing.T) {
	needRoot(t)
	need(t, "ansible-playbook", "nsenter", "ip", "chroot")
	if out, err := try("/usr/bin/python3", "-c", "import apt"); err != nil {
		images.Skip(t, "needs python3-apt: "+out)
	}
	begin := time.Now()
	p := overlay(t)
	repository, err := filepath.Abs(top)
	must(t, err)
	server, agent := packagesOf(t, "v0.1.0", t.TempDir())
	run(t, "cp", "-r", filepath.Join(repository, "deploy", "ansible"), p.path("/root/ansible"))
	deb := p.take(t, agent)
	p.sh(t, "rm -rf /var/lib/trustcast /var/lib/trustcast-agent /etc/trustcast /etc/docker/certs.d; dpkg -i "+p.take(t, server)+"; trustcast init --domain registry.example.com --user ci")
	p.start(t, "exec trustcast server")
	until(t, 30*time.Second, "the server answers", func() (bool, string) {
		_, err := p.shell("trustcast ca show", "")
		return err == nil, fmt.Sprint(err)
	})
	environment := `"TRUSTCAST_GOSSIP_LISTEN": ":7948"`
	play := func(token string) (string, error) {
		return p.shell(`cd /root/ansible; printf '{"trustcast_agent_server": "registry.example.com:7443", "trustcast_agent_deb": "`+deb+`", "trustcast_agent_token": "%s",
"trustcast_agent_name": "web-1", "trustcast_agent_environment": {`+environment+`}, "ansible_python_interpreter": "/usr/bin/python3"}' "`+token+`" >/tmp/vars.json
printf '[docker_hosts]\nlocalhost ansible_connection=local\n' >/tmp/inventory
ansible-playbook -i /tmp/inventory -e @/tmp/vars.json -v site.yml`, "")
	}
	if _, err := play(""); err == nil || !strings.Contains(err.Error(), "trustcast token create") {
		t.Errorf("without a token the role says not what to do: %v", err)
	}
	plain := environment
	environment += `, "TRUSTCAST_TOKEN": "not-for-a-file"`
	if _, err := play(""); err == nil || !strings.Contains(err.Error(), "must not stay there") {
		t.Errorf("a token among the lines of a file: %v", err)
	}
	environment = plain
	token := strings.TrimSpace(p.sh(t, "trustcast token create -q"))
	first, err := play(token)
	must(t, err)
	if strings.Contains(first, token) {
		t.Error("the token is in Ansible's output")
	}
	const ca = "/etc/docker/certs.d/registry.example.com:5000/ca.crt"
	if have, want := p.sh(t, "cat "+ca), p.sh(t, "trustcast ca export -"); have != want {
		t.Errorf("installed is the CA\n%s, exported was\n%s", have, want)
	}
	p.sh(t, "grep -x TRUSTCAST_GOSSIP_LISTEN=:7948 /etc/default/trustcast-agent; trustcast host ls | grep web-1")
	if mode := p.sh(t, "stat -c '%a %U:%G' /etc/default/trustcast-agent"); mode != "640 root:root\n" {
		t.Errorf("/etc/default/trustcast-agent has mode and owner %s", mode)
	}
	second, err := play("")
	must(t, err)
	if !regexp.MustCompile(`changed=0 .*failed=0`).MatchString(second) {
		t.Errorf("the second run changes something:\n%s", second)
	}
	t.Logf("first run:%s; second:%s; %v in all", recap(first), recap(second), time.Since(begin).Round(time.Second))
}

// recap is the line with which Ansible ends.
func recap(out string) string {
	_, line, _ := strings.Cut(out, "PLAY RECAP")
	_, line, _ = strings.Cut(line, ":")
	return strings.Join(strings.Fields(line)[:4], " ")
}
