package doctor

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/trustcast/trustcast/internal/foreign"
)

// restarts names what has an older CA until it is restarted or made anew, and what the
// agent leaves alone.
func (e *exam) restarts() {
	changed := e.installed("")
	for _, home := range e.homes() {
		p := Place{Runtime: "buildx:" + filepath.Base(home), Home: home, UID: os.Geteuid()}
		if info, err := os.Stat(home); err == nil && os.Geteuid() == 0 { // a link is root's, and the home another's
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				p.UID, p.GID = int(s.Uid), int(s.Gid)
			}
		}
		_ = e.inHome(p, func(e *exam) { e.builders(home, later(changed, e.installed(home))) }) // nothing depends on builders
	}
	for _, m := range e.Manual {
		e.add("restart.manual", Warn, m.Runtime, m.Instructions, "%s: %s", m.Runtime, m.Why)
	}
}

// builders are buildx's in a home that are older than what is installed.
func (e *exam) builders(home string, changed time.Time) {
	dir := filepath.Join(home, ".docker/buildx/instances")
	instances, _, err := foreign.ReadDir(dir)
	if err != nil {
		return
	}
	for _, instance := range instances {
		path := filepath.Join(dir, instance.Name())
		info, err := os.Stat(path)
		raw, _, readErr := foreign.ReadFile(path)
		var b struct{ Name, Driver string }
		if errors.Join(err, readErr) != nil || json.Unmarshal(raw, &b) != nil || b.Driver != "docker-container" || len(b.Name) > longestName || changed.IsZero() || !info.ModTime().Before(changed) {
			continue
		}
		e.add("restart.buildx", Warn, path, "docker buildx rm "+quote(b.Name)+", then make it again", "the buildx builder %q copied the CA when it was made, and that was before the present one came", b.Name)
	}
}

// installed is when the newest of our files in a home was written, "" for those in none:
// users date theirs as they like, and that says nothing to others.
func (e *exam) installed(home string) (newest time.Time) {
	for _, f := range e.Registry.Files {
		in := ""
		for _, p := range e.Places {
			if p.Home != "" && strings.HasPrefix(f, filepath.Clean(p.Home)+"/") {
				in = filepath.Clean(p.Home)
			}
		}
		if in != home {
			continue
		}
		if info, err := os.Lstat(f); err == nil {
			newest = later(newest, info.ModTime())
		}
	}
	return newest
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// homes are the directories of users who may have builders.
func (e *exam) homes() []string {
	all, err := filepath.Glob(e.at("/home/*"))
	if err != nil {
		all = nil
	}
	all = append(all, e.at("/root"))
	if e.Home != "" && !slices.Contains(all, e.Home) {
		all = append(all, e.Home)
	}
	return all
}
