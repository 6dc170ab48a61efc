package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// manner is how a runtime reads a directory of certificates.
type manner int

const (
	// classic is dockerd with its own image store.
	classic manner = iota
	// strict is containerd, and dockerd with containerd's image store: the first of
	// three directories, and what is no certificate is an error.
	strict
	// tolerant is podman, buildah, skopeo and CRI-O: the first of three roots.
	tolerant
)

// runtime is a place, and how it is read.
type runtime struct {
	name    string // of the place
	title   string // for people
	manner  manner
	ours    string   // where the agent writes
	roots   []string // where the runtime looks, in its order
	program string   // whose environment has the proxy; "" for that of who asks
	user    string   // who reads; "" for root
	place   Place
}

func (r runtime) rank() int {
	return slices.Index([]string{"docker", "containers", "containerd"}, r.name)
}

func (e *exam) describe(p Place) runtime {
	r := runtime{place: p, name: p.Runtime, title: p.Runtime, ours: p.Dir, roots: append(slices.Clone(p.Before), p.Dir)}
	if p.After != "" {
		r.roots = append(r.roots, p.After)
	}
	kind, user, _ := strings.Cut(p.Runtime, ":")
	switch kind {
	case "docker":
		r.title, r.program, r.manner = "Docker", "dockerd", classic
		if e.containerdStore() {
			r.manner = strict
		}
	case "rootless":
		r.title, r.user = "rootless Docker of "+user, user
	case "containers":
		r.title, r.manner = "podman (and buildah, skopeo, CRI-O)", tolerant
		if own := filepath.Join(e.Home, ".config/containers/certs.d"); e.Home != "" && !slices.Contains(r.roots, own) {
			r.roots = slices.Insert(r.roots, 0, own)
		}
	case "containerd":
		r.manner, r.program = strict, "containerd"
	}
	return r
}

// candidates are the directories that are tried for a name, in order: the first that
// is there is used, and no other.
func (r runtime) candidates(name string) []string {
	var all []string
	for _, root := range r.roots {
		if r.manner == strict {
			if host, port, ok := strings.Cut(name, ":"); ok {
				all = append(all, filepath.Join(root, host+"_"+port+"_"))
			}
			all = append(all, filepath.Join(root, name), filepath.Join(root, "_default"))
			continue
		}
		all = append(all, filepath.Join(root, name))
	}
	return all
}

// containerdStore says whether dockerd keeps images in containerd's store, which reads
// certificates in another manner: when it is told to, and from Engine 29 on unless
// there are images in the old one.
func (e *exam) containerdStore() bool {
	d := e.engines["dockerd"]
	if on, said := d.config.Features["containerd-snapshotter"]; said {
		return on
	}
	if d.major < 29 {
		return false
	}
	data := d.flag("data-root")
	if data == "" {
		data = d.config.DataRoot
	}
	if data == "" {
		data = "/var/lib/docker"
	}
	old, err := filepath.Glob(e.at(filepath.Join(data, "image", "*", "repositories.json")))
	return err != nil || len(old) == 0
}

// mayRead says whether who reads for the runtime may read this file, as far as its
// mode and owner tell.
func (r runtime) mayRead(info os.FileInfo) bool {
	if r.user == "" || info.Mode()&0o004 != 0 {
		return true
	}
	uid, ok := ownerOf(info)
	return ok && uid == r.uid()
}

// uid is that of who reads, -1 for an unknown one.
func (r runtime) uid() int {
	if r.place.Home != "" {
		return r.place.UID
	}
	return uidOf(r.user)
}

// uidOf is a user's number, -1 for an unknown one. It reads what the static program can.
func uidOf(user string) int {
	raw, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(line, ":")
		if len(f) > 2 && f[0] == user {
			if uid, err := strconv.Atoi(f[2]); err == nil {
				return uid
			}
		}
	}
	return -1
}
