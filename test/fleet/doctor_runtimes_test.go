//go:build linux

package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// harms are done to the directory that a runtime reads, $D below $C, with the foreign
// certificate $CA. What each runtime does with them differs, and Docker is not touched.
var harms = []struct{ name, make string }{
	{"nothing", `true`},
	{"a directory x.crt", `mkdir $D/x.crt`},
	{"a dangling link x.crt", `ln -s /nowhere $D/x.crt`},
	{"a link x.crt to a directory", `ln -s .. $D/x.crt`},
	{"x.cert without x.key", `cp $D/ca.crt $D/x.cert`},
	{"x.key without x.cert", `cp $D/ca.crt $D/x.key`},
	{"a pair that does not fit", `cp $D/ca.crt $D/x.cert; cp $D/ca.crt $D/x.key`},
	{"garbage x.crt", `echo garbage >$D/x.crt`},
	{"a foreign CA beside ours", `cp $CA $D/x.crt`},
	{"an empty ca.crt", `: >$D/ca.crt`},
	{"an empty directory", `rm $D/ca.crt`},
	{"no directory", `rm -r $D`},
	{"another spelling", `mv $D $C/registry.test_5000_`},
	{"another spelling, empty", `mkdir $C/registry.test_5000_`},
	{"a default beside it", `mkdir $C/_default`},
	{"a default alone, empty", `rm -r $D; mkdir $C/_default`},
	{"a hosts.toml without a host", `echo 'server = "https://registry.test:5000"' >$D/hosts.toml`},
	{"a hosts.toml without a CA", hostsFile("")},
	{"a hosts.toml with our CA", hostsFile(`ca = "ca.crt"`)},
	{"a hosts.toml with another CA", `cp $CA $D/x.pem; ` + hostsFile(`ca = ["x.pem"]`)},
	{"a hosts.toml with a CA that is not there", hostsFile(`ca = "x.pem"`)},
	{"a hosts.toml that skips", hostsFile("skip_verify = true")},
	{"an empty hosts.toml", `: >$D/hosts.toml`},
}

// hostsFile makes containerd's, with one setting.
func hostsFile(setting string) string {
	return "cat >$D/hosts.toml <<'.'\nserver = \"https://registry.test:5000\"\n[host.\"https://registry.test:5000\"]\n" + setting + "\n.\n"
}

// TestDoctorRuntimes does each harm to skopeo's directory and to containerd's, and
// looks whether the next pull by it does what the doctor says.
func TestDoctorRuntimes(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("doctor of every runtime: " + why)
	}
	t.Parallel()
	begin := time.Now()
	r := newRuntimes(t)
	p := &patient{fleet: r.fleet, h: r.h}
	p.testJoined(t)
	for _, c := range []struct{ client, dir string }{{"skopeo", "/etc/containers/certs.d"}, {"containerd", "/etc/containerd/certs.d"}} {
		i := slices.IndexFunc(r.clients, func(p *puller) bool { return p.name == c.client })
		if i < 0 {
			t.Logf("needs %s", c.client)
			continue
		}
		for _, harm := range harms {
			p.scenario(t, c.client+" with "+harm.name, func(t *testing.T) { p.harm(t, r.clients[i], c.dir, harm.make) })
		}
	}
	if p.failed < 10 || p.agreed-p.failed < 10 {
		t.Errorf("%d pulls failed and %d worked: one of both was hardly tried", p.failed, p.agreed-p.failed)
	}
	t.Logf("doctor, skopeo and containerd agreed %d times: %d pulls that failed, %d that worked; %v in all", p.agreed, p.failed, p.agreed-p.failed, time.Since(begin).Round(time.Second))
}

// harm does one, compares, and puts the directory back.
func (p *patient) harm(t *testing.T, c *puller, dir, script string) {
	head := "C=" + dir + " D=$C/" + domain + " CA=$1/foreign.crt\n"
	must(t, p.h.inHost(head+`rm -rf "$1/kept"; cp -a $C "$1/kept"`+"\n"+script, p.h.dir))
	defer func() {
		must(t, p.h.inHost(head+`find $C -mindepth 1 -delete; cp -a "$1/kept/." $C/`, p.h.dir))
	}()
	d := p.diagnose(t)
	c.n++
	err := c.pull(c.n)
	if (d.Verdict == "fail") != (err != nil) {
		t.Errorf("the doctor says %v\n%s says %v", d, c.name, err)
	}
	p.agreed++
	if err != nil {
		p.failed++
	} else if strings.Contains(script, "skip_verify") && c.name == "containerd" && !d.names("trust.insecure") {
		t.Errorf("nothing is said of skip_verify: %v", d)
	}
}
