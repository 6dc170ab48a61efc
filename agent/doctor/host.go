package doctor

import (
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
	"time"

	"golang.org/x/sys/unix"
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
