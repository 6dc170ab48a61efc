package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
)

const (
	// leaveWithin is how long an agent that runs may take to let go of a membership.
	leaveWithin = 20 * time.Second
	leaveAgain  = 20 * time.Millisecond
)

// ErrWhich says that this host has joined several registries, and that one must be named.
var ErrWhich = errors.New("this host has joined several registries")

// errUnfinished: a leave was killed, or goes on.
var errUnfinished = errors.New("`trustcast-agent leave` was begun and is not through: run it again; to keep the registry instead, run `trustcast-agent join` with its server's address")

// Leave removes what the agent has written on this host for the registry domain, and
// its identity there: "" is the only one, ErrWhich when there are several. What was
// there before stays, and so do other memberships. An agent that runs lets go of this
// one. The server forgets the host by `trustcast host rm`.
func Leave(ctx context.Context, cfg Config, domain string) (LeaveResult, error) {
	cfg = cfg.withDefaults()
	if err := cfg.tidy(); err != nil {
		return LeaveResult{}, err
	}
	dir, err := cfg.leaves(domain)
	if err != nil {
		return LeaveResult{}, err
	}
	return cfg.leaveEach(ctx, []string{dir})
}

// LeaveResult is what leaving took away, also when not all could be.
type LeaveResult struct {
	// Left are the registries that this host has left, each with the name that it had
	// there, by which the server goes on to know it.
	Left []Left
	// Removed are the paths of what is gone.
	Removed []string
}

// Left is one registry; of a damaged membership nothing is known.
type Left struct{ Domain, Name string }

// LeaveAll is Leave for every membership, of which there may be none. One that cannot
// be left keeps none of the others.
func LeaveAll(ctx context.Context, cfg Config) (LeaveResult, error) {
	cfg = cfg.withDefaults()
	if err := cfg.tidy(); err != nil {
		return LeaveResult{}, err
	}
	dirs, err := seats(cfg.DataDir)
	if err == nil && len(dirs) == 0 {
		if _, err := cfg.readStatus(); !errors.Is(err, ErrNotJoined) {
			return LeaveResult{}, err // perhaps it may not be looked into
		}
	}
	r, bad := cfg.leaveEach(ctx, dirs)
	return r, errors.Join(err, bad)
}

func (cfg Config) leaveEach(ctx context.Context, dirs []string) (r LeaveResult, err error) {
	for _, dir := range dirs {
		e, _ := namesAt(dir)
		removed, bad := cfg.at(dir).leave(ctx)
		r.Removed, err = append(r.Removed, removed...), errors.Join(err, bad)
		if bad == nil {
			r.Left = append(r.Left, Left{e.Domain, e.Name})
		}
	}
	return r, err
}

// leaves finds the membership of a domain, or of a server's address.
func (cfg Config) leaves(domain string) (dir string, err error) {
	dirs, err := seats(cfg.DataDir)
	if err != nil {
		return "", err
	}
	if domain == "" && len(dirs) < 2 {
		if _, err := ReadStatus(cfg); err != nil {
			return "", err // it says best why not
		}
		return dirs[0], nil
	}
	wanted, bad := certs.ParseName(strings.ToLower(domain), certs.DefaultPort)
	var domains []string
	for _, dir := range dirs {
		e, names := namesAt(dir)
		if bad == nil && len(names) > 0 && names[0] == wanted || domain != "" && (strings.EqualFold(e.Server, domain) || strings.EqualFold(filepath.Base(dir), domain)) {
			return dir, nil
		}
		domains = append(domains, firstOf(e.Domain, filepath.Base(dir)))
	}
	list := strings.Join(domains, ", ")
	if domain == "" {
		return "", fmt.Errorf("%w (%s): name the one to leave, or give --all", ErrWhich, list)
	}
	if len(dirs) == 0 {
		_, err := ReadStatus(cfg)
		return "", err
	}
	return "", fmt.Errorf("%w of the registry %s: it has joined %s", ErrNotJoined, domain, list)
}

// leave writes down that this membership is to be left, waits until nobody works on it,
// and removes it. Killed at any moment, it can be repeated.
func (cfg Config) leave(ctx context.Context) (removed []string, err error) {
	s := store{cfg.DataDir}
	if err := s.write(leavingFile, boot{Format: stateFormat}); err != nil {
		return nil, err
	}
	release, err := s.lockWithin(ctx, leaveWithin)
	if err != nil {
		return nil, errors.Join(err, s.remove(leavingFile))
	}
	defer release()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	var o owned
	if _, err := s.read(ownedFile, &o); err != nil {
		return nil, err
	}
	removed, err = install.Host{}.Remove(o.Owned)
	if err != nil {
		return removed, err
	}
	for _, name := range stateFiles {
		if err := s.remove(name); err != nil {
			return removed, err
		}
	}
	return removed, s.vacate(cfg.base())
}

// lockWithin is lock, for as long as somebody else may need to let go.
func (s store) lockWithin(ctx context.Context, limit time.Duration) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		release, err = s.lock()
		if !errors.Is(err, ErrRunning) {
			return release, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w, and does not let go of it: stop it, then leave again", err)
		case <-time.After(leaveAgain):
		}
	}
}

// vacate removes what is left of a membership without identity: of a further one, its
// directory.
func (s store) vacate(home string) error {
	if s.dir == home {
		return s.remove(leavingFile)
	}
	for _, name := range []string{lockFile, leavingFile, "."} {
		if err := s.remove(name); err != nil {
			return err
		}
	}
	_ = os.Remove(filepath.Dir(s.dir)) // unless others are in it
	return nil
}

// tidy finishes leaves that were killed after the identity was gone.
func (cfg Config) tidy() error {
	if s := (store{cfg.DataDir}); s.has(leavingFile) && !s.has(identityFile) {
		if err := s.vacate(s.dir); err != nil {
			return err
		}
	}
	dirs, err := further(cfg.DataDir)
	for _, dir := range dirs {
		s := store{dir}
		entries, _ := os.ReadDir(dir)
		if err == nil && (len(entries) == 0 || s.has(leavingFile) && !s.has(identityFile) && !s.held(lockFile)) {
			err = s.vacate(cfg.DataDir)
		}
	}
	return err
}

// leaving: a leave is under way, or was killed.
func (s store) leaving() bool { return s.has(leavingFile) && s.has(identityFile) }
