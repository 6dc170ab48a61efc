//go:build linux

package fleet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ailment is something wrong on a host, made and taken away by scripts that run there
// as root: in the directory $D, with the foreign certificate $CA.
type ailment struct {
	name       string
	make, undo string
	// id is the check that names it, says something of its text; fails says what
	// Docker does with it.
	id, says string
	fails    bool
	// mends: --fix does it alone.
	mends bool
}

// reload has the engine read its configuration again; what is not set there stays.
const reload = `kill -HUP $(cat "$H/docker.pid")`

// ailments are all that FACTS says about Docker's directory, and around it. None is of
// a kind that makes Docker wait for ever.
var ailments = []ailment{
	{name: "a directory x.crt", make: `mkdir $D/x.crt`, undo: `rmdir $D/x.crt`, id: "files.folder", fails: true},
	{name: "a dangling link x.crt", make: `ln -s /nowhere $D/x.crt`, undo: `rm $D/x.crt`, id: "files.dangling", fails: true},
	{name: "a link x.crt to itself", make: `ln -s x.crt $D/x.crt`, undo: `rm $D/x.crt`, id: "files.unreadable", fails: true},
	{name: "x.cert without x.key", make: `cp $D/ca.crt $D/x.cert`, undo: `rm $D/x.cert`, id: "files.pair", fails: true},
	{name: "x.key without x.cert", make: `cp $D/ca.crt $D/x.key`, undo: `rm $D/x.key`, id: "files.pair", fails: true},
	{name: "a pair that does not fit", make: `cp $D/ca.crt $D/x.cert; cp $D/ca.crt $D/x.key`, undo: `rm $D/x.cert $D/x.key`, id: "files.pair", fails: true},
	{name: "garbage x.crt", make: `echo garbage >$D/x.crt`, undo: `rm $D/x.crt`, id: "files.garbage"},
	{name: "a foreign CA beside ours", make: `cp $CA $D/old.crt`, undo: `rm $D/old.crt`, id: "files.foreign"},
	{name: "somebody's temporary file", make: `cp $CA $D/.new.crt`, undo: `rm $D/.new.crt`, id: "files.leftover"},
	{name: "what a killed write left", make: `cp $CA $D/.ca.crt123456`, id: "files.leftover", mends: true},
	{name: "an empty ca.crt", make: `: >$D/ca.crt`, id: "files.garbage", fails: true, mends: true},
	{name: "a truncated ca.crt", make: `truncate -s 100 $D/ca.crt`, id: "files.garbage", fails: true, mends: true},
	{name: "no ca.crt", make: `rm $D/ca.crt`, id: "files.bundle", fails: true, mends: true},
	{name: "another CA in ca.crt", make: `cat $CA >$D/ca.crt`, id: "files.bundle", fails: true, mends: true},
	{name: "ca.crt as a dangling link", make: `rm $D/ca.crt; ln -s /nowhere $D/ca.crt`, id: "files.dangling", fails: true, mends: true},
	{name: "a ca.crt that root alone reads", make: `chmod 0600 $D/ca.crt`, id: "files.mode", mends: true},
	{name: "a ca.crt that all may write", make: `chmod 0666 $D/ca.crt`, id: "files.mode", mends: true},
	{name: "a ca.crt of somebody else", make: `chown 1234 $D/ca.crt`, undo: `chown 0 $D/ca.crt`, id: "files.owner"},
	{name: "no directory", make: `rm -r $D`, id: "files.directory", fails: true, mends: true},
	{name: "an empty directory", make: `rm -r $D; mkdir $D`, id: "files.bundle", fails: true, mends: true},
	{name: "the directory without its port", make: `mv $D ${D%:*}`, undo: `rm -r ${D%:*}`, id: "files.spelling", fails: true, mends: true},
	{name: "the directory for another port", make: `mv $D ${D%:*}:443`, undo: `rm -r ${D%:*}:443`, id: "files.spelling", fails: true, mends: true},
	{name: "a file in the directory's place", make: `mv $D $D.away; : >$D`, undo: `rm $D; mv $D.away $D`, id: "files.directory", fails: true},
	{name: "an identity that others read", make: `chmod 0644 "$H/agent/identity.json"`, id: "host.private", mends: true},
	{
		name: "an insecure registry without its CA", id: "trust.insecure",
		make: `rm $D/ca.crt; echo '{"insecure-registries": ["registry.test:5000"]}' >/etc/docker/daemon.json; ` + reload,
		undo: `echo '{"insecure-registries": []}' >/etc/docker/daemon.json; ` + reload, mends: true,
	},
	{
		name: "an insecure range, and a directory x.crt", id: "trust.insecure",
		make: `mkdir $D/x.crt; echo '{"insecure-registries": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}' >/etc/docker/daemon.json; ` + reload,
		undo: `rmdir $D/x.crt; echo '{"insecure-registries": []}' >/etc/docker/daemon.json; ` + reload,
	},
	{name: "a name that does not resolve", make: `cp /etc/hosts "$H/kept"; echo 127.0.0.1 localhost >/etc/hosts`, undo: `cat "$H/kept" >/etc/hosts`, id: "network.name", fails: true},
	{name: "a name that leads to loopback", make: `cp /etc/hosts "$H/kept"; echo 127.0.0.1 registry.test >/etc/hosts`, undo: `cat "$H/kept" >/etc/hosts`, id: "trust.loopback", fails: true},
	{name: "a firewall before the registry", make: `iptables -w -I OUTPUT -p tcp --dport 5000 -j REJECT`, undo: `iptables -w -D OUTPUT -p tcp --dport 5000 -j REJECT`, id: "network.registry", fails: true},
	{name: "a firewall before the server", make: `iptables -w -I OUTPUT -p tcp --dport 7443 -j REJECT`, undo: `iptables -w -D OUTPUT -p tcp --dport 7443 -j REJECT`, id: "network.server"},
	{name: "a firewall before gossip", make: `iptables -w -I OUTPUT -p tcp --dport 7947 -j REJECT; iptables -w -I OUTPUT -p udp --dport 7947 -j REJECT`, undo: `iptables -w -D OUTPUT -p tcp --dport 7947 -j REJECT; iptables -w -D OUTPUT -p udp --dport 7947 -j REJECT`, id: "network.gossip", says: "cannot be reached"},
	{name: "a firewall before gossip's TCP", make: `iptables -w -I OUTPUT -p tcp --dport 7947 -j REJECT`, undo: `iptables -w -D OUTPUT -p tcp --dport 7947 -j REJECT`, id: "network.gossip", says: "over UDP, but not over TCP"},
	{name: "a firewall before gossip's UDP", make: `iptables -w -I OUTPUT -p udp --dport 7947 -j DROP`, undo: `iptables -w -D OUTPUT -p udp --dport 7947 -j DROP`, id: "network.gossip", says: "over TCP, but not over UDP"},
	{name: "a firewall that swallows gossip's UDP answers", make: `iptables -w -I INPUT -p udp --sport 7947 -j DROP`, undo: `iptables -w -D INPUT -p udp --sport 7947 -j DROP`, id: "network.gossip", says: "over TCP, but not over UDP (no answer"},
	{name: "a read-only disk", make: `mount --bind /etc/docker/certs.d /etc/docker/certs.d; mount -o remount,bind,ro /etc/docker/certs.d`, undo: `umount /etc/docker/certs.d`, id: "host.room"},
	{name: "a stale builder", make: `mkdir -p $HOME/.docker/buildx/instances; echo '{"Name":"old","Driver":"docker-container"}' >$HOME/.docker/buildx/instances/old; touch -d 2001-01-01 $HOME/.docker/buildx/instances/old`, undo: `rm -r $HOME/.docker`, id: "restart.buildx"},
}

// namesRemembered is how long the resolver of a Go program does not look at /etc/hosts.
const namesRemembered = 5 * time.Second

// TestDoctor makes each ailment on a host with a real engine, and looks whether the
// next pull does what the doctor says.
func TestDoctor(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("doctor: " + why)
	}
	t.Parallel()
	begin := time.Now()
	f := newFleet(t, 1)
	p := &patient{fleet: f, h: f.hosts[0]}
	f.scenario(t, "before joining", p.testBefore)
	f.scenario(t, "joined", p.testJoined)
	if t.Failed() {
		t.Fatal("the fleet did not come up: nothing else can be tested")
	}
	for _, a := range ailments {
		f.scenario(t, a.name, func(t *testing.T) { p.suffer(t, a) })
	}
	f.scenario(t, "a running agent", p.testRunning)
	f.scenario(t, "an impostor", p.testImpostor)
	f.scenario(t, "proxies", p.testProxies)
	f.scenario(t, "a server that is away", p.testAway)
	t.Logf("doctor and Docker agreed %d times: %d pulls that failed, %d that worked; %d ailments mended; %v in all",
		p.agreed, p.failed, p.agreed-p.failed, p.mended, time.Since(begin).Round(time.Second))
}

// patient is the host that suffers.
type patient struct {
	*fleet
	h                      *host
	agreed, failed, mended int
}

// diagnosis is what is looked at of `doctor -o json`.
type diagnosis struct {
	Verdict string
	Mended  []string
	Checks  []struct{ ID, State, Subject, Text, Fix string }
}

func (d diagnosis) names(id string) bool {
	return slices.ContainsFunc(d.Checks, func(c struct{ ID, State, Subject, Text, Fix string }) bool { return c.ID == id && c.State != "ok" })
}

func (d diagnosis) String() string {
	text := "verdict " + d.Verdict
	for _, c := range d.Checks {
		if c.State != "ok" {
			text += fmt.Sprintf("\n  %s %s: %s → %s", c.State, c.ID, c.Text, c.Fix)
		}
	}
	return text
}

// diagnose asks the doctor on the host; exit code and verdict must be of one mind.
func (p *patient) diagnose(t *testing.T, args ...string) (d diagnosis) {
	t.Helper()
	out, err := p.h.agentCommand("doctor", append(args, "-o", "json")...)
	if e := json.Unmarshal([]byte(out), &d); e != nil {
		t.Errorf("doctor: %v (%v)", e, err)
	}
	if bad := d.Verdict == "fail"; bad != (err != nil) || bad && !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("verdict %s, and the command ends with %v", d.Verdict, err)
	}
	return d
}

// agree wants the doctor to say what Docker then does. Docker remembers names for five
// seconds: an outcome that is not the wanted one is waited for that long.
func (p *patient) agree(t *testing.T, fails bool, args ...string) diagnosis {
	t.Helper()
	d := p.diagnose(t, args...)
	var err error
	_ = until(2*namesRemembered, "Docker agrees", func() (bool, string) {
		err = p.h.pull(appImage)
		return (err != nil) == fails, ""
	})
	if (err != nil) != fails {
		t.Errorf("Docker: %v; want failure %v\n%v", err, fails, d)
	}
	if (d.Verdict == "fail") != (err != nil) {
		t.Errorf("the doctor says %v\nDocker says %v", d, err)
	}
	p.agreed++
	if err != nil {
		p.failed++
	}
	return d
}

func (p *patient) testBefore(t *testing.T) {
	p.testNegativeControl(t)
	p.mustName(t, p.agree(t, true, domain), "host.joined")
	p.mustName(t, p.diagnose(t), "host.joined") // no name is known: nothing is judged
}

func (p *patient) mustName(t *testing.T, d diagnosis, id string) {
	t.Helper()
	if !d.names(id) {
		t.Errorf("no check %s that is not ok: %v", id, d)
	}
}

// testJoined joins without leaving an agent that would mend what is made below.
func (p *patient) testJoined(t *testing.T) {
	token, err := p.server.command("token", "create", "-q")
	must(t, err)
	_, err = p.h.agentCommand("join", "registry.test:"+grpcPort, "--token", strings.TrimSpace(token), "--name", p.h.name)
	must(t, err)
	must(t, p.h.login(domain, user, password))
	must(t, p.h.push(p.run.path("image.tar"), loadedImage, appImage))
	must(t, os.WriteFile(p.h.path("foreign.crt"), foreignCA(t), 0o644))
	d := p.agree(t, false)
	p.mustName(t, d, "host.agent")
	for _, c := range d.Checks {
		if c.State != "ok" && c.ID != "host.agent" {
			t.Errorf("on a healthy host: %v", d)
		}
	}
}

// script runs one of an ailment's scripts on the host.
func (p *patient) script(t *testing.T, script string) {
	t.Helper()
	must(t, p.h.inHost("H=$1 D=/etc/docker/certs.d/"+domain+" CA=$1/foreign.crt\n"+script, p.h.dir))
}

func (p *patient) suffer(t *testing.T, a ailment) {
	p.script(t, a.make)
	if strings.Contains(a.make, reload) {
		p.waitInsecure(t, true)
	}
	p.treat(t, a)
	p.script(t, a.undo)
	if strings.Contains(a.undo, reload) {
		p.waitInsecure(t, false)
	}
	if d := p.agree(t, false); d.names(a.id) {
		t.Errorf("healthy again, but %v", d)
	}
}

// treat wants the ailment to be named, judged right, and mended if that is safe.
func (p *patient) treat(t *testing.T, a ailment) {
	t.Helper()
	d := p.agree(t, a.fails)
	p.mustName(t, d, a.id)
	if !strings.Contains(d.String(), a.says) {
		t.Errorf("nothing says %q: %v", a.says, d)
	}
	foreign := p.foreign(t)
	if a.mends {
		if d := p.diagnose(t, "--fix"); len(d.Mended) == 0 || d.Verdict == "fail" {
			t.Errorf("not mended: %v, %v", d.Mended, d)
		}
		p.mended++
	} else {
		p.diagnose(t, "--fix") // touches nothing of others
	}
	if now := p.foreign(t); now != foreign {
		t.Errorf("--fix changed what is not the agent's:\n%s\nbefore:\n%s", now, foreign)
	}
}

// waitInsecure waits until the engine has read its configuration again.
func (p *patient) waitInsecure(t *testing.T, want bool) {
	t.Helper()
	must(t, until(time.Minute, "the engine reads its configuration", func() (bool, string) {
		out, err := p.h.docker("info", "--format", "{{json .RegistryConfig}}")
		is := strings.Contains(out, `"registry.test:5000"`) || strings.Contains(out, "10.0.0.0/8")
		return err == nil && is == want, fmt.Sprint(out, err)
	}))
}

// foreign describes all files of certs.d but ours.
func (p *patient) foreign(t *testing.T) string {
	t.Helper()
	tree, err := p.h.tree()
	must(t, err)
	var lines []string
	for path, entry := range tree {
		if base := path[strings.LastIndexByte(path, '/')+1:]; base != "ca.crt" && !strings.HasPrefix(base, ".ca.crt") && path != "/"+domain {
			lines = append(lines, path+" "+entry)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// testRunning: with an agent that runs nothing is left to say.
func (p *patient) testRunning(t *testing.T) {
	must(t, p.h.startAgent())
	p.waitTrusted(t, time.Minute)
	must(t, until(time.Minute, "a healthy host", func() (bool, string) {
		d := p.diagnose(t)
		return d.Verdict == "ok", d.String()
	}))
	p.agree(t, false)
	must(t, p.h.stopAgent(syscall.SIGTERM))
}

// testAway: without the server a pull fails, and no agent can help it.
func (p *patient) testAway(t *testing.T) {
	must(t, p.server.stop())
	d := p.agree(t, true)
	p.mustName(t, d, "network.registry")
	p.mustName(t, d, "network.server")
}
