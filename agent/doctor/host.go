package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/internal/foreign"
)

const (
	// leastFree is what an installation and the agent's state need, and more (bytes).
	leastFree = 1 << 20
	// lateSync is when somebody should look, while the agent says that it is connected.
	lateSync = 24 * time.Hour
	// longestName of a builder is shown; buildx names files after them.
	longestName = 255
)

// host says whether this host follows its server.
func (e *exam) host() {
	r, a := e.Registry, e.Registry.Agent
	const join = "run the line that `trustcast token create` prints on the server"
	switch {
	case r.Unseen != nil:
		e.add("host.joined", Warn, "", asRoot, "whether this host has joined cannot be seen by this user, nor what the agent has installed (%v)", r.Unseen)
		return
	case !r.Joined && len(r.Others) > 0 && len(r.Names) > 0:
		e.add("host.joined", Warn, "", join, "this host has not joined the fleet of %s (it has joined %s): nobody installs that registry's CA here", r.Names[0], strings.Join(r.Others, ", "))
		return
	case !r.Joined:
		e.add("host.joined", Warn, "", join, "this host has not joined a fleet: nobody installs the registry's CA here")
		return
	}
	e.ok("host.joined", r.Server, "this host belongs to the fleet of %s", r.Names[0])
	switch {
	case !a.Running:
		e.add("host.agent", Warn, a.DataDir, e.start(), "the agent does not run: what is installed stays, but no rotation is followed")
	case !a.Connected:
		e.add("host.agent", Warn, r.Server, "look at the agent's log", "the agent runs, but has no connection to %s (%s)", r.Server, orElse(a.Problem, "it keeps trying"))
	case a.Problem != "":
		e.add("host.agent", Warn, r.Server, "trustcast-agent status", "the agent says: %s", a.Problem)
	default:
		e.ok("host.agent", r.Server, "the agent runs and is connected")
	}
	if a.Running && !a.Connected && !a.LastSync.IsZero() && e.Now().Sub(a.LastSync) > lateSync {
		e.add("host.sync", Warn, r.Server, "look at the way to "+r.Server, "the server was last heard on %s", a.LastSync.UTC().Format(time.RFC3339))
	}
	switch {
	case !a.Running:
	case a.Gossip == "unreachable":
		e.add("host.gossip", Warn, r.Server, "let TCP and UDP to the server's port 7947 through, or do without: the stream carries everything", "the agent hears nobody by gossip")
	case a.Gossip == "off" && a.GossipProblem != "":
		e.add("host.gossip", Warn, a.GossipListen, anotherPort(a.GossipListen), "gossip is off: %s", a.GossipProblem)
	}
	e.identity(a)
}

// start is how the agent of this host is started.
func (e *exam) start() string {
	for _, dir := range []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if _, err := os.Stat(e.at(filepath.Join(dir, "trustcast-agent.service"))); err == nil {
			return "systemctl enable --now trustcast-agent   # why it ended: journalctl -u trustcast-agent"
		}
	}
	return "trustcast-agent run"
}

// anotherPort is what to do about one that gossip cannot have: the next, which is
// also that of the agent beside a server.
func anotherPort(listen string) string {
	host, text, err := net.SplitHostPort(listen)
	port, bad := strconv.Atoi(text)
	if err != nil || bad != nil || port >= math.MaxUint16 {
		return "start the agent with another --gossip-listen"
	}
	next := net.JoinHostPort(host, strconv.Itoa(port+1))
	return fmt.Sprintf("TRUSTCAST_GOSSIP_LISTEN=%s in /etc/default/trustcast-agent, or --gossip-listen %s; then restart the agent", next, next)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// identity says when this host stops being one.
func (e *exam) identity(a Agent) {
	now := e.Now()
	ends := a.IdentityEnds.UTC().Format("2006-01-02")
	switch {
	case a.IdentityEnds.IsZero():
	case now.After(a.IdentityEnds):
		e.add("host.identity", Warn, a.DataDir, "trustcast-agent run   # an ended identity may be renewed for a year", "this host's identity ended on %s: no rotation is followed", ends)
	case now.After(a.IdentityDue.Add(lateSync)):
		e.add("host.identity", Warn, a.DataDir, "look at the agent's log", "this host's identity should have been renewed on %s, and ends on %s", a.IdentityDue.UTC().Format("2006-01-02"), ends)
	default:
		e.ok("host.identity", a.DataDir, "this host's identity is good until %s", ends)
	}
}

// room says whether a rotation could be installed.
func (e *exam) room() {
	if !e.Registry.Joined {
		return
	}
	for _, p := range append(slices.Clone(e.Places), Place{Dir: e.Registry.Agent.DataDir}) {
		_ = e.inHome(p, func(e *exam) { e.roomIn(p.Dir, p.Home == "") }) // its files were not seen before, and that was said
	}
	e.privacy(e.Registry.Agent.DataDir)
}

// roomIn says whether a directory could be written.
func (e *exam) roomIn(dir string, roots bool) {
	at := nearest(dir)
	var s unix.Statfs_t
	if err := unix.Statfs(at, &s); err == nil {
		switch {
		case s.Flags&unix.ST_RDONLY != 0:
			e.add("host.room", Warn, dir, "mount -o remount,rw "+quote(at), "%s is on a file system that is read-only: no rotation can be installed", dir)
		case s.Bavail*uint64(s.Bsize) < leastFree || s.Files > 0 && s.Ffree == 0: //nolint:gosec,unconvert // its type differs by platform; it is never negative
			e.add("host.room", Warn, dir, "make room on the disk of "+quote(at), "the disk of %s is full: no rotation can be installed", dir)
		case roots && os.Geteuid() == 0 && unix.Access(at, unix.W_OK) != nil:
			e.add("host.room", Warn, dir, "lsattr -d "+quote(at), "%s cannot be written: no rotation can be installed", dir)
		}
	}
}

// nearest is dir, or its nearest parent that is there.
func nearest(dir string) string {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil || at == filepath.Dir(at) {
			return at
		}
	}
}

// privacy says who else can read this host's key.
func (e *exam) privacy(dir string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d == nil || err != nil && !d.IsDir() {
			return err
		}
		info, err := d.Info()
		open := fs.FileMode(0o077)
		if d.IsDir() {
			open = 0o022 // its files guard themselves
		}
		if err == nil && info.Mode()&fs.ModeSymlink == 0 && info.Mode()&open != 0 {
			e.add("host.private", Warn, path, mend, "%s is open to others (%v): it is this host's identity", path, info.Mode())
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.add("files.unseen", Warn, dir, asRoot, "not everything in %s can be looked at (%v)", dir, err)
	}
}

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
