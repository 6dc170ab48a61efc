package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/agent/doctor"
	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
)

// Diagnosis is what the doctor found about one registry.
type Diagnosis struct {
	// Registry is its domain; "" when this host has not joined and none was named.
	Registry string
	Checks   []doctor.Check
	// Mended says what was put right before the checks, each in a sentence.
	Mended []string
}

// Verdict is the worst state of all checks.
func Verdict(all []Diagnosis) doctor.State {
	var checks []doctor.Check
	for _, d := range all {
		checks = append(checks, d.Checks...)
	}
	return doctor.Verdict(checks)
}

// ErrDomain says that what was given is no registry's domain.
var ErrDomain = errors.New("this is no registry's domain")

// Doctor says for each registry whether this host's next pull from it would work.
// domain names one, on a host that has not joined, too; "" for all that it has joined.
// With mend, what is this agent's own and wrong on disk is put right first; other
// people's files never are. It ends within a few seconds of doctor.Limit.
func Doctor(ctx context.Context, cfg Config, domain string, mend bool) ([]Diagnosis, error) {
	cfgs, err := cfg.withDefaults().examined(domain)
	if err != nil {
		return nil, err
	}
	all := make([]Diagnosis, len(cfgs))
	g, ctx := errgroup.WithContext(ctx)
	for i, cfg := range cfgs {
		g.Go(func() (err error) {
			all[i], err = cfg.diagnose(ctx, domain, mend)
			if err != nil && len(cfgs) > 1 {
				all[i], err = cfg.damage(err), nil // the others are looked at all the same
			}
			return err
		})
	}
	return all, g.Wait()
}

// examined is one configuration for each registry that this host has joined, or the one
// of domain alone; and that of a host that has joined none.
func (cfg Config) examined(domain string) (all []Config, err error) {
	dirs, err := seats(cfg.DataDir)
	if errors.Is(err, fs.ErrPermission) {
		return []Config{cfg}, nil // the rest can be seen without
	}
	if err != nil {
		return nil, err
	}
	wanted, bad := certs.ParseName(domain, certs.DefaultPort)
	for _, dir := range dirs {
		if _, names := namesAt(dir); domain != "" && bad == nil && slices.Contains(names, wanted) {
			return []Config{cfg.at(dir)}, nil
		}
		all = append(all, cfg.at(dir))
	}
	if len(all) == 0 || domain != "" {
		return []Config{cfg}, nil
	}
	return all, nil
}

// damage is the diagnosis of one registry of several, whose records cannot be read.
func (cfg Config) damage(why error) Diagnosis {
	e, _ := namesAt(cfg.DataDir)
	name := e.Domain
	if name == "" {
		name = filepath.Base(cfg.DataDir)
	}
	return Diagnosis{Registry: name, Checks: []doctor.Check{{ID: "host.joined", State: doctor.Warn, Subject: cfg.DataDir, Text: why.Error()}}}
}

// diagnose is Doctor for one registry.
func (cfg Config) diagnose(ctx context.Context, domain string, mend bool) (d Diagnosis, err error) {
	a := &membership{cfg: cfg, store: store{dir: cfg.DataDir}, log: cfg.Log}
	r, err := a.subject(domain)
	if err != nil {
		return d, err
	}
	if mend && r.Unseen != nil {
		d.Checks = append(d.Checks, doctor.Check{ID: "host.mend", State: doctor.Warn, Text: "nothing was mended: only root can", Fix: "run it as root"})
	}
	if mend && r.Joined {
		var unmended error
		if d.Mended, unmended = a.mend(r.Agent.Running); unmended != nil {
			d.Checks = append(d.Checks, doctor.Check{ID: "host.mend", State: doctor.Warn, Text: "not everything was mended: " + unmended.Error()})
		}
		if r, err = a.subject(domain); err != nil {
			return d, err
		}
	}
	if len(r.Names) > 0 {
		d.Registry = r.Names[0].String()
	}
	places, manual, err := a.runtimesHere()
	if err != nil {
		return d, err
	}
	d.Checks = append(d.Checks, doctor.Examine(ctx, doctor.Config{
		Registry: r, Places: places, Manual: manual, Root: cfg.Root, Home: ownHome(), As: install.As, Dial: cfg.Dial, Now: cfg.Now,
	})...)
	return d, nil
}

// ownHome is the home of who asks, "" for none. After some ways to become root it is still
// that of who did, where links lead anywhere.
func ownHome() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	info, err := os.Stat(home)
	if err != nil {
		return ""
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || int(s.Uid) != os.Geteuid() {
		return ""
	}
	return home
}

// runtimesHere are the runtimes that this host installs for, or would.
func (a *membership) runtimesHere() (places []doctor.Place, manual []doctor.Manual, err error) {
	if err := a.detect(); err != nil {
		return nil, nil, err
	}
	for _, p := range a.host.Places {
		places = append(places, doctor.Place{Runtime: p.Runtime, Dir: p.Dir, Before: p.Before, After: p.After, Home: p.Home, UID: p.UID, GID: p.GID})
	}
	all, err := a.manual()
	if err != nil {
		return nil, nil, err
	}
	for _, m := range all {
		manual = append(manual, doctor.Manual(m))
	}
	return places, manual, nil
}

// subject is what this agent knows about its registry, or its name alone.
func (a *membership) subject(domain string) (doctor.Registry, error) {
	var named []certs.Name
	if domain != "" {
		n, err := certs.ParseName(domain, certs.DefaultPort)
		if err != nil {
			return doctor.Registry{}, fmt.Errorf("%w: %w", ErrDomain, err)
		}
		named = []certs.Name{n}
	}
	st, err := a.cfg.readStatus()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return doctor.Registry{Names: named, Unseen: err}, nil
	case errors.Is(err, ErrNotJoined):
		return a.cfg.stranger(named)
	case err != nil:
		return doctor.Registry{}, err
	}
	if _, err := a.store.read(identityFile, &a.enrolment); err != nil {
		return doctor.Registry{}, err
	}
	if err := a.load(); err != nil {
		return doctor.Registry{}, err
	}
	a.cfg.Runtimes = a.runtimes
	if named != nil && !slices.Contains(a.names, named[0]) {
		return a.cfg.stranger(named)
	}
	due, ends, err := a.enrolment.renewal()
	if err != nil {
		return doctor.Registry{}, err
	}
	keys := a.ring.Keys
	if st.Gossip == off && st.GossipProblem == "" {
		keys = nil // this host does without gossip
	}
	return doctor.Registry{
		Names: a.names, Joined: true, Server: a.enrolment.Server, Fallback: a.wanted.fallback, Peers: a.ring.Peers, GossipKeys: keys,
		Bundle: a.bundle, Files: a.owned.Files,
		Agent: doctor.Agent{
			DataDir: a.cfg.DataDir, Running: st.Running, Connected: st.Connected, Problem: st.Problem,
			Gossip: st.Gossip, GossipProblem: st.GossipProblem, GossipListen: st.GossipListen,
			LastSync: st.LastSync, IdentityDue: due, IdentityEnds: ends,
		},
	}, nil
}

// stranger is a registry that this host has not joined, beside those that it has.
func (cfg Config) stranger(named []certs.Name) (doctor.Registry, error) {
	r := doctor.Registry{Names: named}
	dirs, err := seats(cfg.base())
	switch {
	case errors.Is(err, fs.ErrPermission):
		r.Unseen = err
	case err != nil:
		return r, err
	}
	for _, dir := range dirs {
		if e, _ := namesAt(dir); e.Domain != "" {
			r.Others = append(r.Others, e.Domain)
		}
	}
	return r, nil
}
