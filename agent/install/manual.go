package install

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/foreign"
	"github.com/trustcast/trustcast/internal/printable"
)

// Manual is a runtime that is here and that we leave alone: it wants a restart, or
// keeps a copy of the CA. Its user has to do something, now or after each rotation.
type Manual struct {
	// Runtime is "k3s", "buildkitd", "buildx:NAME", "docker-desktop" or "containerd".
	Runtime string
	// Why says where it was seen, and why it is not done by us.
	Why string
	// steps with DOMAIN for the registry and FILE for our file.
	steps string
}

// Instructions are the exact steps for a registry whose CA is in file.
func (m Manual) Instructions(n certs.Name, file string) string {
	return strings.NewReplacer("DOMAIN", n.String(), "FILE", file).Replace(m.steps)
}

// now ends the steps of those that keep a CA; the edge serves the predecessors for them.
const now = ", now, and again when it suits after a rotation: the CA of before verifies until it ends."

// mostBuilders is how many buildx builders are named, and with how many bytes.
const mostBuilders, longestName = 20, 100

// builderName is what buildx lets a builder be called; it says nothing to a shell.
var builderName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// manual finds them.
func (s System) manual(containerdListed bool) (all []Manual) {
	if there(s.path("etc/rancher/k3s")) || s.hasProgram("k3s") {
		all = append(all, Manual{
			"k3s", "k3s is here; it reads its own registries.yaml, once when it starts",
			"In /etc/rancher/k3s/registries.yaml say\n  configs:\n    \"DOMAIN\":\n      tls:\n        ca_file: FILE\nand run 'systemctl restart k3s' (k3s-agent on other nodes)" + now,
		})
	}
	if there(s.path("etc/buildkit")) || s.hasProgram("buildkitd") {
		all = append(all, Manual{
			"buildkitd", "a standalone buildkitd is here; it reads buildkitd.toml once when it starts",
			"In /etc/buildkit/buildkitd.toml say\n  [registry.\"DOMAIN\"]\n    ca = [\"FILE\"]\nand restart buildkitd" + now,
		})
	}
	if at := s.path("opt/docker-desktop"); there(at) {
		all = append(all, Manual{
			"docker-desktop", at + " is there; Docker Desktop runs its engine in a virtual machine and copies certificates into it when it starts",
			"As its user run\n  mkdir -p ~/.docker/certs.d/DOMAIN && cp FILE ~/.docker/certs.d/DOMAIN/ca.crt\nand restart Docker Desktop" + now,
		})
	}
	c := s.containerd()
	table := "io.containerd.grpc.v1.cri"
	if c.version == "3" {
		table = "io.containerd.cri.v1.images"
	}
	if cluster := there(s.path("var/lib/kubelet")) && c.there && !c.noCRI; (cluster || containerdListed) && !c.reads(containerdCerts) {
		all = append(all, Manual{
			"containerd", "containerd's CRI is here, and config_path in " + s.path(containerdConfig) + " does not lead to " + containerdCerts + "; that file is not ours to change",
			"In " + s.path(containerdConfig) + " say\n  [plugins.\"" + table + "\".registry]\n    config_path = \"" + containerdDefault + "\"\nand run 'systemctl restart containerd' once; no rotation needs another.",
		})
	}
	return append(all, s.builders()...)
}

// builders are buildx's that run in a container, as far as their users may look there.
func (s System) builders() (all []Manual) {
	var homes []Home
	if inTime("all homes", func() error { homes = s.homes(); return nil }) != nil {
		return nil // and homes is not ours
	}
	for _, home := range homes {
		var theirs []Manual
		most := mostBuilders - len(all)
		err := As(home.UID, home.GID, func() error { theirs = buildersIn(home.Dir, most); return nil })
		if err == nil {
			all = append(all, theirs...)
		}
	}
	return all
}

// homes are root's and those in /home, with whoever owns them.
func (s System) homes() (all []Home) {
	dirs, _ := filepath.Glob(s.path("home/*"))
	for _, dir := range append([]string{s.path("root")}, dirs...) {
		info, err := os.Stat(dir) // a link is root's, and the home another's
		if err != nil {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			all = append(all, Home{Dir: dir, UID: int(owner.Uid), GID: int(owner.Gid)})
		}
	}
	return all
}

// buildersIn are those of a home.
func buildersIn(home string, most int) (all []Manual) {
	dir := filepath.Join(home, ".docker/buildx/instances")
	instances, _, err := foreign.ReadDir(dir) // of more, the first
	if err != nil {
		return nil
	}
	for _, instance := range instances {
		name, path := instance.Name(), filepath.Join(dir, instance.Name())
		if len(all) == most {
			break
		}
		if len(name) > longestName || !builderName.MatchString(name) || !inContainer(path) {
			continue
		}
		all = append(all, Manual{
			"buildx:" + name, printable.Clip(path, 10*longestName) + " is a builder in a container; it has copied the CA when it was made",
			"As its user run\n  printf '[registry.\"%s\"]\\n  ca = [\"%s\"]\\n' DOMAIN FILE >buildkitd.toml\n  docker buildx rm --keep-state " + name + "\n  docker buildx create --name " + name + " --driver docker-container --buildkitd-config buildkitd.toml --bootstrap\nand the options that it was made with" + now,
		})
	}
	return all
}

// inContainer reads a builder's file.
func inContainer(path string) bool {
	data, err := readAny(path)
	var builder struct{ Driver string }
	return err == nil && json.Unmarshal(data, &builder) == nil && builder.Driver == "docker-container"
}
