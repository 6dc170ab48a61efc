package contract

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trustcast/trustcast/test/images"
)

// skopeo runs the program, which verifies the registry by the CA in certs alone.
type skopeo struct {
	s     *site
	certs string
	home  string
}

func newSkopeo(s *site) skopeo {
	s.t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		images.Skip(s.t, "needs skopeo, for which Debian has a package")
	}
	c := skopeo{s, s.t.TempDir(), s.t.TempDir()}
	ca, err := os.ReadFile(filepath.Join(s.cfg.DataDir, "certs", "ca.crt"))
	must(s.t, err)
	must(s.t, os.WriteFile(filepath.Join(c.certs, "ca.crt"), ca, 0o600))
	return c
}

func (c skopeo) run(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(c.s.t.Context(), "skopeo", append([]string{"--insecure-policy"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.home, "XDG_RUNTIME_DIR="+c.home)
	return cmd.CombinedOutput()
}

// copies moves an image; from and to are in skopeo's words.
func (c skopeo) copies(certs, from, to string) ([]byte, error) {
	creds := user + ":" + password
	return c.run("copy", "--all", "--preserve-digests", "--src-cert-dir", certs, "--dest-cert-dir", certs, "--src-creds", creds, "--dest-creds", creds, from, to)
}

// bigLayers of bigLayer bytes make an image of 200 MB.
const bigLayers, bigLayer = 10, 20_000_000

// skopeo pushes and pulls an image of 200 MB and one for several platforms, and
// refuses the registry without its CA.
func TestSkopeo(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		c := newSkopeo(s)
		big, err := random.Image(bigLayer, bigLayers)
		must(t, err)
		index := platforms(t)
		must(t, remote.Write(s.ref("from/big:v1"), big, s.options()...))
		must(t, remote.WriteIndex(s.ref("from/multi:v1"), index, s.options()...))

		at := "docker://" + s.domain
		if out, err := c.copies(t.TempDir(), at+"/from/multi:v1", "dir:"+t.TempDir()); err == nil || !strings.Contains(string(out), "x509") {
			t.Fatalf("without the CA: %v: %s", err, out)
		}
		for _, image := range []string{"big:v1", "multi:v1"} {
			files := "dir:" + t.TempDir()
			if out, err := c.copies(c.certs, at+"/from/"+image, files); err != nil {
				t.Fatalf("pull %s: %v: %s", image, err, out)
			}
			if out, err := c.copies(c.certs, files, at+"/team/"+image); err != nil {
				t.Fatalf("push %s: %v: %s", image, err, out)
			}
		}
		// What arrived is what was sent.
		must(t, s.pull("team/big:v1", big))
		s.same("team/multi:v1", index)
		manifest, err := index.IndexManifest()
		must(t, err)
		for _, child := range manifest.Manifests {
			want, err := index.Image(child.Digest)
			must(t, err)
			must(t, s.pull("team/multi@"+child.Digest.String(), want))
		}
		t.Logf("%s: %d MB in %d layers and an index of %d platforms went through go-containerregistry and skopeo, whole", s.engine, bigLayers*bigLayer/1_000_000, bigLayers, len(manifest.Manifests))
	})
}

// same wants the tag to name this image or index.
func (s *site) same(what string, want interface{ Digest() (v1.Hash, error) }) {
	s.t.Helper()
	got, err := remote.Head(s.ref(what), s.options()...)
	must(s.t, err)
	digest, err := want.Digest()
	must(s.t, err)
	if got.Digest != digest {
		s.t.Errorf("%s is %s, sent was %s", what, got.Digest, digest)
	}
}

// platforms is an index of an image each for two.
func platforms(t *testing.T) v1.ImageIndex {
	t.Helper()
	// As Docker has it, since its images are: skopeo mixes no kinds.
	index := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := random.Image(100_000, 2)
		must(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return index
}
