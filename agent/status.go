package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// Status is what this host has, as `trustcast-agent status` shows it.
type Status struct {
	HostID, Name, FleetID, Domain, Server string
	// Generation and Fingerprint of the bundle accepted last.
	Generation  uint64
	Fingerprint string
	// Files as re-read now.
	Files []FileStatus
	// Running: an agent runs on this data directory, or a join is under way. The rest
	// is its word.
	Running, Connected bool
	// Gossip is "ok", "unreachable" or "off".
	Gossip, Problem string
	// GossipProblem is why gossip is off where it should not be, GossipListen where it
	// should listen then; else "".
	GossipProblem, GossipListen string
	LastSync                    time.Time
	IdentityNotAfter            time.Time
	// Repairs counts what was mended since the agent's start, because something else
	// had changed it; the last was of RepairedPath at Repaired. Contested is what
	// something else changes again and again, "" for nothing.
	Repairs                 uint64
	Repaired                time.Time
	RepairedPath, Contested string
}

// FileStatus is one installed file.
type FileStatus struct {
	// Runtime that reads it, see install.Place.
	Runtime string
	Path    string
	// OK: it holds the accepted bundle and is in effect.
	OK      bool
	Problem string
	// Foreign: the Problem is of what others have put there, which stays: no agent
	// mends it.
	Foreign bool
	// Note says what works, and may yet be worth knowing.
	Note string
	// Aside: it is in a user's home and counts for nothing, see install.Place.
	Aside bool
}

// Text says what is wrong with the file, in one sentence with its path; "" for nothing.
func (f FileStatus) Text() string {
	switch {
	case f.Problem == "":
		return ""
	case strings.HasPrefix(f.Problem, f.Path): // also "", where nothing was joined
		return f.Problem
	}
	return fmt.Sprintf("%s is not right: %s", f.Path, f.Problem)
}

// showAfter is how long people wait for a status in which nothing but the generation is
// new: it takes a write as long as that of the CA, which others may be waiting for.
const showAfter = time.Second

// shownStatus is the part of a status that only a running agent knows.
type shownStatus struct {
	Format    int    `json:"format"`
	Connected bool   `json:"connected"`
	Gossip    string `json:"gossip"`
	// GossipProblem and GossipListen are those of Status.
	GossipProblem string    `json:"gossip_problem,omitempty"`
	GossipListen  string    `json:"gossip_listen,omitempty"`
	Problem       string    `json:"problem"`
	LastSync      time.Time `json:"last_sync"`
	Repairs       uint64    `json:"repairs"`
	Repaired      time.Time `json:"repaired"`
	// RepairedPath was mended last, at Repaired.
	RepairedPath string `json:"repaired_path"`
	Contested    string `json:"contested"`
}

// show writes down what only a running agent knows, when it changed.
func (a *membership) show(e certs.Evidence) {
	connected, lastSync, why := a.link.state()
	problem := e.Problem
	if !connected {
		problem = firstOf(problem, why)
	}
	now := Status{Connected: connected, Gossip: a.gossipState(), GossipProblem: a.gossipProblem, Problem: problem, Generation: e.Generation, Repairs: a.repairs.total, Repaired: a.repairs.at, RepairedPath: a.repairs.path, Contested: a.repairs.contested()}
	before := a.shown
	before.LastSync = time.Time{}
	if before.Connected == now.Connected && before.Gossip == now.Gossip && before.Problem == now.Problem && before.Generation == now.Generation && before.Repairs == now.Repairs && before.Contested == now.Contested && lastSync.Sub(a.shown.LastSync) < time.Hour {
		return
	}
	now.LastSync = lastSync
	if a.gossipProblem != "" {
		now.GossipListen = a.cfg.GossipListen
	}
	a.shown = now
	if a.showing != nil && before.Connected == now.Connected && before.Gossip == now.Gossip && before.Problem == now.Problem {
		a.showing.Reset(showAfter) // in a rotation the next generation is not far
		return
	}
	a.writeShown()
}

func (a *membership) showStopped() {
	a.shown.Connected = false
	a.shown.Problem, a.shown.Contested = "", ""
	a.writeShown()
}

func (a *membership) writeShown() {
	s := a.shown
	err := a.store.write(statusFile, shownStatus{
		Format: stateFormat, Connected: s.Connected, Gossip: s.Gossip, GossipProblem: s.GossipProblem, GossipListen: s.GossipListen,
		Problem: s.Problem, LastSync: s.LastSync.UTC(),
		Repairs: s.Repairs, Repaired: s.Repaired.UTC(), RepairedPath: s.RepairedPath, Contested: s.Contested,
	})
	if err != nil {
		a.log.Warn("status not written", "err", err)
	}
}

// ErrNotJoined says that the data directory holds no identity.
var ErrNotJoined = errors.New("this machine has not joined a fleet")

// ReadStatus reads a host's state at the server that it has joined, or at the first of
// several; no agent needs to run.
func ReadStatus(cfg Config) (Status, error) {
	cfg = cfg.withDefaults()
	dirs, err := seats(cfg.DataDir)
	if err != nil || len(dirs) == 0 {
		return cfg.readStatus()
	}
	return cfg.at(dirs[0]).readStatus()
}

// ReadAll is ReadStatus for every membership, the first one first. Of several, one that
// is damaged has no more than a Problem and, if it is known, its Server.
func ReadAll(cfg Config) ([]Status, error) {
	cfg = cfg.withDefaults()
	dirs, err := seats(cfg.DataDir)
	if err != nil || len(dirs) < 2 {
		s, err := ReadStatus(cfg)
		return []Status{s}, err
	}
	var all []Status
	for _, dir := range dirs {
		s, err := cfg.at(dir).readStatus()
		if err != nil {
			s = Status{Problem: err.Error(), Running: store{cfg.DataDir}.held(runFile)}
			if dir != cfg.DataDir {
				s.Server = filepath.Base(dir)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

func (cfg Config) readStatus() (Status, error) {
	if _, err := os.Stat(cfg.DataDir); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return Status{}, forWhom(err)
		}
		return Status{}, fmt.Errorf("%w (%w): run the line that `trustcast token create` prints on the server, or give the right --data-dir", ErrNotJoined, err)
	}
	s := store{dir: cfg.DataDir}
	a := &membership{cfg: cfg, store: s}
	joined, err := s.read(identityFile, &a.enrolment)
	if err != nil {
		return Status{}, err
	}
	if !joined {
		return Status{}, fmt.Errorf("%w (no identity in %s): run the line that `trustcast token create` prints on the server", ErrNotJoined, cfg.DataDir)
	}
	if err := a.load(); err != nil {
		return Status{}, err
	}
	a.cfg.Runtimes = a.runtimes
	if err := a.detect(); err != nil && len(a.host.Places) == 0 {
		return Status{}, err
	}
	e := a.enrolment
	st := Status{
		HostID: e.HostID, Name: e.Name, FleetID: e.FleetID, Domain: e.Domain, Server: e.Server,
		Generation: a.bundle.Generation, Fingerprint: string(a.bundle.Fingerprint()),
	}
	if cert, err := x509.ParseCertificate(e.Cert); err == nil {
		st.IdentityNotAfter = cert.NotAfter
	}
	for _, f := range a.host.Read(a.names, a.owned) {
		fs := FileStatus{Runtime: f.Runtime, Path: f.Path, Problem: f.Problem, Foreign: f.Foreign, Note: f.Note, Aside: f.Aside}
		if fs.Problem == "" && f.Fingerprint != a.bundle.Fingerprint() {
			fs.Problem = "it holds other certificates than the server wants"
		}
		fs.OK = fs.Problem == ""
		st.Files = append(st.Files, fs)
	}
	var shown shownStatus
	if _, err := s.read(statusFile, &shown); err != nil {
		return Status{}, err
	}
	served := s.held(lockFile)
	st.Running = served || store{cfg.base()}.held(runFile)
	st.Connected = shown.Connected && served
	st.Gossip, st.Problem, st.LastSync = shown.Gossip, shown.Problem, shown.LastSync
	st.GossipProblem, st.GossipListen = shown.GossipProblem, shown.GossipListen
	if !served {
		st.Gossip = "" // who was a member is none now
	}
	if s.leaving() {
		st.Problem = errUnfinished.Error()
	}
	st.Repairs, st.Repaired, st.RepairedPath, st.Contested = shown.Repairs, shown.Repaired, shown.RepairedPath, shown.Contested
	return st, nil
}
