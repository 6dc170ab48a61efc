package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Auto stands alone in a list of runtimes and means those that are here.
const Auto = "auto"

// System is where runtimes are looked for.
type System struct {
	// Root has etc, home, root, usr and var; "" is "/".
	Root string
	// DockerCertsDir is Docker's certs.d; "" is the one below Root.
	DockerCertsDir string
}

func (s System) path(elem ...string) string {
	root := s.Root
	if root == "" {
		root = "/"
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

// Detected is what is here.
type Detected struct {
	// Places that we write, Docker's first.
	Places []Place
	// Manual are those whose users have to do something themselves.
	Manual []Manual
}

// Detect finds the places of the listed runtimes, see Places, and if a list is given
// the runtimes that we leave alone.
func Detect(s System, runtimes []string) (d Detected, err error) {
	if d.Places, err = Places(s, runtimes); err == nil && len(runtimes) > 0 {
		d.Manual = s.manual(slices.Contains(runtimes, RuntimeContainerd))
	}
	return d, err
}

// Places finds the places of the listed runtimes: none means Docker alone, Auto those
// that are here, with Docker in any case. Otherwise it is docker, rootless (whoever is
// found to have one), rootless:USER, containers or containerd. The error says what is
// wrong with the list; when a listed user is missing, the other places come with it. It looks into a few directories, and runs nothing.
func Places(s System, runtimes []string) (places []Place, err error) {
	if err := CheckRuntimes(runtimes); err != nil {
		return nil, err
	}
	auto := slices.Contains(runtimes, Auto)
	listed := func(runtime string) bool { return slices.Contains(runtimes, runtime) }
	docker := s.DockerCertsDir
	if docker == "" {
		docker = s.path("etc/docker/certs.d")
	}
	withDocker := len(runtimes) == 0 || auto || listed(RuntimeDocker)
	if withDocker {
		places = append(places, Place{Runtime: RuntimeDocker, Dir: docker})
	}
	after := "" // where those look that read Docker's directory, too
	if withDocker && docker == s.path("etc/docker/certs.d") {
		after = docker
	}
	if listed(RuntimeContainers) || auto && s.hasContainers() {
		places = append(places, Place{
			Runtime: RuntimeContainers, Dir: s.path("etc/containers/certs.d"),
			Before: []string{s.path("root/.config/containers/certs.d")}, After: after,
		})
	}
	if config := s.containerd(); listed(RuntimeContainerd) || auto && config.reads(containerdCerts) {
		p := Place{Runtime: RuntimeContainerd, Dir: s.path(containerdCerts)}
		if after != "" && config.reads("/etc/docker/certs.d") {
			p.After = after
		}
		places = append(places, p)
	}
	rootless, err := s.rootless(runtimes)
	return append(places, rootless...), err
}

// CheckRuntimes says what is wrong with a list of runtimes.
func CheckRuntimes(runtimes []string) error {
	for _, r := range runtimes {
		kind, user, named := strings.Cut(r, ":")
		switch {
		case r == Auto && len(runtimes) > 1:
			return errors.New("auto stands alone: it finds what is here")
		case named && (kind != RuntimeRootless || user == "" || strings.Contains(user, "/")):
			return fmt.Errorf("%q is no runtime: only rootless takes a user, as in rootless:alice", r)
		case !slices.Contains([]string{Auto, RuntimeDocker, RuntimeRootless, RuntimeContainers, RuntimeContainerd}, kind):
			return fmt.Errorf("%q is no runtime: there are docker, rootless, rootless:USER, containers (podman, buildah, skopeo, CRI-O) and containerd, or auto for those that are here", r)
		}
	}
	return nil
}

// hasContainers says whether podman or one of its relatives is here.
func (s System) hasContainers() bool {
	return there(s.path("etc/containers")) || s.hasProgram("podman", "buildah", "skopeo", "crio")
}

// hasProgram looks where packages put programs.
func (s System) hasProgram(names ...string) bool {
	for _, dir := range []string{"usr/bin", "usr/local/bin", "usr/sbin", "usr/local/sbin", "bin"} {
		for _, name := range names {
			if info, err := os.Stat(s.path(dir, name)); err == nil && info.Mode().IsRegular() {
				return true
			}
		}
	}
	return false
}
