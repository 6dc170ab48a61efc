//go:build linux

package fleet_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trustcast/trustcast/test/images"
)

const (
	airGapped      = "../../docs/how-to/air-gapped.md"
	manyRegistries = "../../docs/how-to/many-registries.md"
	onSwarm        = "../../docs/how-to/swarm.md"

	// otherName is the second registry of the page on many.
	otherName     = "registry.example.org"
	otherRegistry = otherName + ":5000"
	// other is where the second registry's commands find it.
	other = "export TRUSTCAST_DATA_DIR=/var/lib/other; "
)

// pageBlock is what a page has to be run on a machine, or to be refused there.
var pageBlock = regexp.MustCompile("(?s)<!-- (tested|refused): ([a-z0-9-]+) -->\n```sh\n(.*?)```")

// pageLine is a line of a page: to be run on a machine, or to be refused.
type pageLine struct {
	kind, where, line string
	block             int // on its page
}

// linesOf returns the lines of a page's blocks, without remarks.
func linesOf(t *testing.T, path string) (all []pageLine) {
	t.Helper()
	page, err := os.ReadFile(path)
	must(t, err)
	for i, b := range pageBlock.FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(b[3]) {
			if line, _, _ = strings.Cut(strings.TrimSpace(line), " #"); line != "" {
				all = append(all, pageLine{b[1], b[2], strings.TrimSpace(line), i})
			}
		}
	}
	return all
}

// unmarked counts a page's blocks of commands that no test would run.
func unmarked(page string) int {
	return strings.Count(page, "```sh\n") - len(pageBlock.FindAllString(page, -1))
}

// TestPagesAreRunWhole: what is added to these pages is run, too.
func TestPagesAreRunWhole(t *testing.T) {
	for _, path := range wholePages {
		page, err := os.ReadFile(path)
		must(t, err)
		if n := unmarked(string(page)); n != 0 || len(linesOf(t, path)) == 0 {
			t.Errorf("%s: %d blocks of commands are run by no test: say above each where it is run, as in <!-- tested: web-1 -->", path, n)
		}
		if unmarked(string(page)+"\n```sh\ntrustcast status\n```\n") != 1 {
			t.Errorf("%s: a block without a mark is not noticed", path)
		}
	}
}

var wholePages = []string{airGapped, manyRegistries, onSwarm}

// testAirGapped carries images in, from an outside that has an engine and a Docker Hub.
func (f *follower) testAirGapped(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		images.Skip(t, "needs skopeo")
	}
	outside, web := f.machines["registry"], f.machines["web-1"]
	f.machines["outside"] = outside
	_, err := outside.docker("load", "--quiet", "--input", f.run.path("image.tar"))
	must(t, err)
	_, err = outside.docker("tag", loadedImage, "debian:12")
	must(t, err)
	saved, err := outside.docker("image", "inspect", "--format", "{{.Id}}", "debian:12")
	must(t, err)
	want := []string{"", strings.TrimSpace(saved), f.hub(t, outside)}
	var carried []string // the images that the registry had, one after the other
	must(t, web.forget(howToRegistry+"/debian:12"))
	for _, s := range linesOf(t, airGapped) {
		f.line(t, f.machines[s.where], s.line)
		f.share(t, "debian.tar.gz", "debian.tar")
		config, err := f.try(web, "skopeo inspect --raw --config docker://"+howToRegistry+"/debian:12 2>/dev/null")
		id := ""
		if err == nil {
			id = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(config)))
		}
		carried = append(carried, id)
	}
	if carried = slices.Compact(carried); !slices.Equal(carried, want) {
		t.Errorf("debian:12 was in the registry, one after the other, %q, want %q", carried, want)
	}
	must(t, web.pull(howToRegistry+"/debian:12"))
	exported, err := os.ReadFile(outside.path("home", "ca.crt"))
	must(t, err)
	installed, err := os.ReadFile(web.path("etc-docker", "certs.d", howToRegistry, "ca.crt"))
	must(t, err)
	if string(exported) != string(installed) {
		t.Errorf("exported for machines without an agent:\n%s\nwhat the host has:\n%s", exported, installed)
	}
}

// hub is what a machine takes for Docker Hub, with a debian:12, whose ID it returns.
func (f *follower) hub(t *testing.T, h *host) (id string) {
	t.Helper()
	l, err := net.Listen("tcp", f.run.addr(bridgeAddr)+":0")
	must(t, err)
	s := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	must(t, s.Listener.Close())
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	// OCI's as it is: skopeo would convert another one for its archive, and the ID with it.
	layer, err := random.Layer(layerBytes, types.OCILayer)
	must(t, err)
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	must(t, err)
	ref, err := name.NewTag(l.Addr().String()+"/library/debian:12", name.Insecure)
	must(t, err)
	must(t, remote.Write(ref, img, remote.WithTransport(&http.Transport{})))
	_, err = f.try(h, fmt.Sprintf(`mkdir -p /etc/containers/registries.conf.d
printf '[[registry]]\nprefix = "docker.io"\nlocation = "%s"\ninsecure = true\n' >/etc/containers/registries.conf.d/hub.conf`, l.Addr()))
	must(t, err)
	digest, err := img.ConfigName()
	must(t, err)
	return digest.String()
}

// testManyRegistries has a second server, and follows which of the two the host trusts.
func (f *follower) testManyRegistries(t *testing.T) {
	server, web := f.machines["registry"], f.machines["web-1"]
	f.startOther(t)
	for _, line := range []string{"trustcast host rm web-1", "trustcast token create -q >token-a", other + "trustcast token create -q >token-b"} {
		f.line(t, server, line)
	}
	f.share(t, "token-a", "token-b")
	f.line(t, web, "trustcast-agent leave")
	trusts := []string{f.trusts(t)}
	for _, s := range linesOf(t, manyRegistries) {
		if s.where == "other" {
			f.line(t, server, other+s.line)
		} else {
			f.line(t, f.machines[s.where], s.line)
		}
		if trusts = append(trusts, f.trusts(t)); strings.Contains(s.line, " join ") {
			f.line(t, web, s.line) // repeated, it changes nothing
		}
	}
	both := howToRegistry + " " + otherRegistry
	want := []string{"", howToRegistry, both, howToRegistry, ""}
	if trusts = slices.Compact(trusts); !slices.Equal(trusts, want) {
		t.Errorf("the host trusted, one after the other, %q, want %q", trusts, want)
	}
	f.line(t, web, "trustcast-agent leave --all") // nothing is joined any more
}

// startOther runs the second server, as on a machine of its own.
func (f *follower) startOther(t *testing.T) {
	t.Helper()
	h := f.machines["registry"]
	must(t, f.net.add("other", f.run.addr(serverAddr)))
	f.line(t, h, other+"trustcast init --domain "+otherName+" --user ci --password-stdin <<<'another horse battery staple'")
	// The namespace first: the machine's own mounts are older than it.
	argv := []string{"nsenter", "--net=/run/netns/" + f.net.namespace("other"), "nsenter", "--target", strconv.Itoa(h.engine.cmd.Process.Pid), "--mount", "trustcast", "server"}
	p, err := f.run.start("other-service", append(f.env(h), "TRUSTCAST_DATA_DIR=/var/lib/other"), argv...)
	must(t, err)
	f.services = append(f.services, p)
	must(t, until(30*time.Second, "the second server is up", func() (bool, string) {
		out, err := f.try(h, other+"trustcast status || test $? = 3")
		return err == nil, out + tail(p.log, 10)
	}))
}

// trusts says which of the two registries the host's engine trusts. A wrong password is
// refused by whom it trusts; any other it does not ask.
func (f *follower) trusts(t *testing.T) string {
	t.Helper()
	var trusted []string
	for _, r := range []string{howToRegistry, otherRegistry} {
		err := f.machines["web-1"].login(r, "ci", "wrong")
		switch {
		case err != nil && strings.Contains(err.Error(), "x509"):
		case err != nil && strings.Contains(err.Error(), "401 Unauthorized"):
			trusted = append(trusted, r)
		default:
			t.Fatalf("login at %s with a wrong password: %v", r, err)
		}
	}
	return strings.Join(trusted, " ")
}
