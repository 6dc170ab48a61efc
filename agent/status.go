package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/trustcast/trustcast/agent/install"
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
	// Running: an agent runs on this data directory. The rest is its word.
	Running, Connected bool
	// Gossip is "ok", "unreachable" or "off".
	Gossip, Problem  string
	LastSync         time.Time
	IdentityNotAfter time.Time
}

// FileStatus is one installed file.
type FileStatus struct {
	Path string
	// OK: it holds the accepted bundle and is in effect.
	OK      bool
	Problem string
}

// shownStatus is the part of a status that only a running agent knows.
type shownStatus struct {
	Format    int       `json:"format"`
	Connected bool      `json:"connected"`
	Gossip    string    `json:"gossip"`
	Problem   string    `json:"problem"`
	LastSync  time.Time `json:"last_sync"`
}

// show writes down what only a running agent knows, when it changed.
func (a *agent) show(e certs.Evidence) {
	connected, lastSync, why := a.link.state()
	problem := e.Problem
	if !connected {
		problem = firstOf(problem, why)
	}
	now := Status{Connected: connected, Gossip: a.gossipState(), Problem: problem, Generation: e.Generation}
	before := a.shown
	before.LastSync = time.Time{}
	if before.Connected == now.Connected && before.Gossip == now.Gossip && before.Problem == now.Problem && before.Generation == now.Generation && lastSync.Sub(a.shown.LastSync) < time.Hour {
		return
	}
	now.LastSync = lastSync
	a.shown = now
	a.writeShown()
}

func (a *agent) showStopped() {
	a.shown.Connected = false
	a.shown.Problem = ""
	a.writeShown()
}

func (a *agent) writeShown() {
	s := a.shown
	err := a.store.write(statusFile, shownStatus{Format: stateFormat, Connected: s.Connected, Gossip: s.Gossip, Problem: s.Problem, LastSync: s.LastSync.UTC()})
	if err != nil {
		a.log.Warn("status not written", "err", err)
	}
}

// ErrNotJoined says that the data directory holds no identity.
var ErrNotJoined = errors.New("this machine has not joined a fleet")

// ReadStatus reads a host's state; no agent needs to run.
func ReadStatus(cfg Config) (Status, error) {
	cfg = cfg.withDefaults()
	if _, err := os.Stat(cfg.DataDir); err != nil {
		return Status{}, fmt.Errorf("%w (%w): run the line that `trustcast token create` prints on the server, or give the right --data-dir", ErrNotJoined, err)
	}
	s := store{dir: cfg.DataDir}
	a := &agent{cfg: cfg, store: s, docker: install.Docker{Dir: cfg.DockerCertsDir}}
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
	e := a.enrolment
	st := Status{
		HostID: e.HostID, Name: e.Name, FleetID: e.FleetID, Domain: e.Domain, Server: e.Server,
		Generation: a.bundle.Generation, Fingerprint: string(a.bundle.Fingerprint()),
	}
	if cert, err := x509.ParseCertificate(e.Cert); err == nil {
		st.IdentityNotAfter = cert.NotAfter
	}
	for _, f := range a.docker.Read(a.names, a.owned) {
		fs := FileStatus{Path: f.Path, Problem: f.Problem}
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
	release, err := s.lock()
	if st.Running = errors.Is(err, ErrRunning); err == nil {
		release()
	}
	st.Connected = shown.Connected && st.Running
	st.Gossip, st.Problem, st.LastSync = shown.Gossip, shown.Problem, shown.LastSync
	return st, nil
}
