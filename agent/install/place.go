package install

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trustcast/trustcast/certs"
)

// The runtimes, as flags, logs and reports call them.
const (
	RuntimeDocker     = "docker"
	RuntimeRootless   = "rootless" // a place's is rootless:USER
	RuntimeContainers = "containers"
	RuntimeContainerd = "containerd"
)

// Place is a directory of registry certificates that a runtime reads.
type Place struct {
	// Runtime is "docker", "rootless:USER", "containers" (podman, buildah, skopeo,
	// CRI-O) or "containerd".
	Runtime string
	// Dir is its certs.d, with a directory for each registry.
	Dir string
	// Before are directories like Dir that the runtime looks into first. One that has
	// a directory for the registry hides that in Dir. They are not ours to write.
	Before []string
	// After is the Dir of another place, where the runtime looks when there is no
	// directory for the registry in Dir; "" when it looks nowhere.
	After string
	// Home is the user's for whom a rootless engine runs, otherwise "". What lies
	// below it is read and written with the rights of UID and GID alone: whatever
	// links the user makes there, they lead to what is the user's.
	Home     string
	UID, GID int
	// Aside marks a user's place that was found by itself, when nothing was listed. It is written,
	// and what is wrong is told; but a user can lock everybody out of a home, and may
	// not stop a fleet's rotation by that, so it is no part of evidence.
	Aside bool
}

// spells says whether the runtime knows other spellings of a registry's directory:
// the first there of host_5000_, host:5000 and _default is read, and *.crt in it only
// without a hosts.toml. Docker does so since Engine 29, with containerd's image store.
func (p Place) spells() bool { return p.Runtime != RuntimeContainers }

const defaultDir = "_default"

// underscored is the spelling host_5000_, "" for a name without a port.
func underscored(name string) string {
	host, port, ok := strings.Cut(name, ":")
	if !ok {
		return ""
	}
	return host + "_" + port + "_"
}

// targets are the directories below Dir that hold our file, or have to. host:5000 is
// always one, since older engines know no other; host_5000_ is another one when
// somebody has made it, since then newer engines read nothing else.
func (p Place) targets(names []certs.Name, owned []string) (dirs []string) {
	for _, n := range names {
		for _, name := range n.Dirs() {
			if p.needs(name, owned) {
				dirs = append(dirs, name)
			}
			if other := underscored(name); p.spells() && other != "" && there(filepath.Join(p.Dir, other)) {
				dirs = append(dirs, other)
			}
		}
	}
	return dirs
}

// needs says whether our file has to be in Dir for this name. It has not when the
// runtime reads Docker's directory as long as there is none here, and somebody else
// has put something there, such as a client certificate: ours would hide it.
func (p Place) needs(name string, owned []string) bool {
	dir := filepath.Join(p.Dir, name)
	if _, ours := ownedIn(dir, owned); ours || p.After == "" || there(dir) {
		return true
	}
	if p.spells() && (there(filepath.Join(p.Dir, defaultDir)) || there(filepath.Join(p.Dir, underscored(name)))) {
		return true
	}
	return !othersIn(filepath.Join(p.After, name), owned)
}

// othersIn says whether somebody else has put something into a directory that counts
// for pulls.
func othersIn(dir string, owned []string) bool {
	entries, err := readDir(dir)
	if err != nil {
		return errors.Is(err, errTooMany)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		counts := slices.Contains([]string{".crt", ".cert", ".key", ".toml"}, filepath.Ext(e.Name()))
		return counts && !slices.Contains(owned, filepath.Join(dir, e.Name()))
	})
}

func ownedIn(dir string, files []string) (string, bool) {
	for _, f := range files {
		if filepath.Dir(f) == dir {
			return f, true
		}
	}
	return "", false
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
