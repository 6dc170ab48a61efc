//go:build linux

package fleet_test

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// shipped is what an image must be.
type shipped struct {
	repository, program, user, data string
	owner                           int // of data
	ports                           []string
}

var shippedImages = []shipped{
	{"trustcast/trustcast", "trustcast", "65532:65532", "var/lib/trustcast", 65532, []string{"5000/tcp", "7443/tcp", "7480/tcp", "7947/tcp", "7947/udp"}},
	{"trustcast/agent", "trustcast-agent", "0:0", "", 0, []string{"7947/tcp", "7947/udp"}},
}

// making is held by whoever runs `make`: there is one bin/.
var making sync.Mutex

// testImages builds the images as the how-to says, with the classic builder on an
// engine that has no image at all, and takes them to the other machine.
func (c *composed) testImages(t *testing.T) {
	cmd := exec.Command("bash", "-c", c.blocks["build"][0])
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+c.registry.socket(), "DOCKER_BUILDKIT=0", "VERSION=v9.8.7+test", markEnv+"="+c.fleet.run.name())
	making.Lock()
	out, err := cmd.CombinedOutput()
	making.Unlock()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c.blocks["build"][0], err, out)
	}
	for _, s := range shippedImages {
		archive := c.fleet.run.path(s.program + ".tar")
		c.line(t, c.registry, fmt.Sprintf("docker save -o %s %s:v9.8.7-test %s:latest", archive, s.repository, s.repository))
		c.line(t, c.other, "docker load -i "+archive)
		s.check(t, archive)
	}
}

func (s shipped) check(t *testing.T, archive string) {
	tag, err := name.NewTag(s.repository + ":v9.8.7-test")
	must(t, err)
	img, err := tarball.ImageFromPath(archive, &tag)
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	s.checkConfig(t, config.Config)

	var names []string
	must(t, eachFile(img, func(h *tar.Header, content []byte) {
		path := strings.Trim(h.Name, "/")
		names = append(names, path)
		if path == s.data && h.Uid != s.owner {
			t.Errorf("%s: /%s belongs to %d, want %d", s.repository, path, h.Uid, s.owner)
		}
		if path == s.program {
			s.checkProgram(t, h, content)
		}
	}))
	slices.Sort(names)
	want := []string{s.program}
	for dir := s.data; dir != "" && dir != "."; dir = filepath.Dir(dir) {
		want = append(want, dir)
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%s holds %v, want %v", s.repository, names, want)
	}
}

func (s shipped) checkConfig(t *testing.T, config v1.Config) {
	for label, want := range map[string]string{
		"title": s.program, "version": "v9.8.7+test", "licenses": "Apache-2.0", "source": "https://github.com/trustcast/trustcast",
	} {
		if have := config.Labels["org.opencontainers.image."+label]; have != want {
			t.Errorf("%s: label %s is %q, want %q", s.repository, label, have, want)
		}
	}
	for _, label := range []string{"description", "url", "documentation", "revision", "vendor"} {
		if config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("%s has no label %s", s.repository, label)
		}
	}
	if config.User != s.user {
		t.Errorf("%s runs as %q, want %q", s.repository, config.User, s.user)
	}
	var ports []string
	for port := range config.ExposedPorts {
		ports = append(ports, port)
	}
	slices.Sort(ports)
	if !slices.Equal(ports, s.ports) {
		t.Errorf("%s exposes %v, want %v", s.repository, ports, s.ports)
	}
	if _, ok := config.Volumes["/var/lib/"+s.program]; !ok || config.Healthcheck == nil || !slices.Equal(config.Entrypoint, []string{"/" + s.program}) {
		t.Errorf("%s: volumes %v, health %v, entrypoint %v", s.repository, config.Volumes, config.Healthcheck, config.Entrypoint)
	}
}

// checkProgram wants it to need nothing of the image's.
func (s shipped) checkProgram(t *testing.T, h *tar.Header, content []byte) {
	if h.Mode&0o777 != 0o755 || h.Uid != 0 {
		t.Errorf("/%s has mode %o and belongs to %d", s.program, h.Mode, h.Uid)
	}
	program, err := elf.NewFile(bytes.NewReader(content))
	must(t, err)
	libraries, _ := program.ImportedLibraries() // an error: no dynamic section, which is what we want
	interpreted := slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if len(libraries) > 0 || interpreted {
		t.Errorf("/%s is not static: libraries %v, interpreter %v", s.program, libraries, interpreted)
	}
	t.Logf("%s: %.1f MB", s.repository, float64(len(content))/1e6)
}

// eachFile walks through what a container of the image starts with.
func eachFile(img v1.Image, do func(*tar.Header, []byte)) error {
	files := mutate.Extract(img)
	err := walkTar(files, do)
	return errors.Join(err, files.Close())
}

func walkTar(r io.Reader, do func(*tar.Header, []byte)) error {
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		do(h, content)
	}
}

// testPrivileges looks at the containers' processes from outside: what the kernel
// knows counts, not what was asked for.
func (c *composed) testPrivileges(t *testing.T) {
	c.healthy(t)
	for service, uid := range map[string]string{"server": "65532", "agent": "0"} {
		pid := strings.TrimSpace(c.line(t, c.registry, "docker inspect --format '{{.State.Pid}}' $(docker-compose ps -q "+service+")"))
		data, err := os.ReadFile("/proc/" + pid + "/status")
		must(t, err)
		has := map[string]string{}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			has[key] = strings.Join(strings.Fields(value), " ")
		}
		none := strings.Repeat("0", 16)
		for key, want := range map[string]string{
			"Uid": strings.Join([]string{uid, uid, uid, uid}, " "), "CapEff": none, "CapPrm": none, "CapBnd": none, "NoNewPrivs": "1",
		} {
			if has[key] != want {
				t.Errorf("%s: %s is %q, want %q", service, key, has[key], want)
			}
		}
		mounts, err := os.ReadFile("/proc/" + pid + "/mounts")
		must(t, err)
		if root := mountOptions(string(mounts), "/"); !slices.Contains(root, "ro") {
			t.Errorf("%s: the root is mounted %v, want ro", service, root)
		}
	}
}

// mountOptions are those of a mount point, of its last mount.
func mountOptions(mounts, point string) (options []string) {
	for line := range strings.Lines(mounts) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[1] == point {
			options = strings.Split(fields[3], ",")
		}
	}
	return options
}
