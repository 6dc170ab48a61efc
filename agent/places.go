package agent

import (
	"errors"
	"slices"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// AutoRuntimes stands alone in Config.Runtimes and means those that are here.
const AutoRuntimes = install.Auto

// ParseRuntimes makes Config.Runtimes of what people call them: podman and its
// relatives read one directory, which is that of containers.
func ParseRuntimes(list []string) (runtimes []string, err error) {
	for _, r := range list {
		switch r {
		case "podman", "buildah", "skopeo", "cri-o", "crio":
			r = install.RuntimeContainers
		}
		if !slices.Contains(runtimes, r) {
			runtimes = append(runtimes, r)
		}
	}
	return runtimes, install.CheckRuntimes(runtimes)
}

// system is where runtimes are looked for.
func (cfg Config) system() install.System {
	return install.System{Root: cfg.Root, DockerCertsDir: cfg.DockerCertsDir}
}

// detect finds where the runtimes of this host look.
func (a *membership) detect() error {
	places, err := install.Places(a.cfg.system(), a.cfg.Runtimes)
	if err == nil && len(places) == 0 {
		err = errors.New("none of the runtimes that --runtimes names is here: name others, or say auto")
	}
	if len(places) > 0 && (len(a.host.Places) == 0 || !errors.Is(err, install.ErrLate)) { // they are there, and do not answer now
		a.host = install.Host{Places: places}
	}
	return err
}

// detectFirst is detect before anything else. A host that has joined goes on with those
// that are there: that one listed user is gone must not leave the others without a CA.
func (a *membership) detectFirst() error {
	err := a.detect()
	if err != nil && len(a.host.Places) > 0 && a.store.has(identityFile) {
		a.log.Warn("not all runtimes found", "err", err)
		a.unfound = err.Error()
		return nil
	}
	return err
}

// detectAgain takes notice of runtimes that came or went since the last tick.
func (a *membership) detectAgain() {
	if a.cfg.Runtimes == nil {
		return // Docker's place is always the same
	}
	before := a.host
	unfound := ""
	if err := a.detect(); err != nil {
		unfound = err.Error()
	}
	if unfound != a.unfound && unfound != "" {
		a.log.Warn("not all runtimes found", "err", unfound)
	}
	a.unfound = unfound
	now := a.host
	if slices.Equal(before.Runtimes(), now.Runtimes()) {
		return
	}
	a.log.Info("runtimes changed", "before", before.Runtimes(), "now", now.Runtimes())
	select {
	case <-a.moved: // not taken yet
	default:
	}
	a.moved <- a.watched()
}

// watched are the directories whose changes are looked into at once. Homes are left to
// the slow check: their users could keep this process busy.
func (a *membership) watched() (dirs []string) {
	for _, p := range a.host.Places {
		if p.Home == "" {
			dirs = append(dirs, p.Dir)
		}
	}
	return dirs
}

// astray says whether a file that is no part of evidence is not as it should be.
func astray(found []install.Found, want certs.Fingerprint) bool {
	return slices.ContainsFunc(found, func(f install.Found) bool { return f.Aside && f.Fingerprint != want })
}

// mendAside writes what is no part of evidence, and says what keeps it from that when
// this is news.
func (a *membership) mendAside() {
	err := a.install()
	problem := ""
	for _, f := range a.host.Read(a.names, a.owned) {
		if f.Aside && problem == "" {
			problem = f.Problem
		}
	}
	if err != nil {
		problem = err.Error()
	}
	if problem != a.aside && problem != "" {
		a.log.Warn("a user's home keeps the CA from that user's engine", "problem", problem)
	}
	a.aside = problem
}

// letGo removes what was installed for runtimes that are not to be installed for any
// more: what stays there would grow old, and hide Docker's.
func (a *membership) letGo(plan install.Owned) (install.Owned, error) {
	if slices.Equal(a.runtimes, a.cfg.Runtimes) {
		return plan, nil
	}
	kept, rest := a.host.Divide(plan)
	removed, err := a.host.Remove(rest)
	for _, path := range removed {
		a.log.Info("removed, since its runtime is not installed for any more", "path", path)
	}
	return kept, err
}

// Manual is a runtime that the agent leaves alone, and what its user has to do.
type Manual struct{ Runtime, Why, Instructions string }

// manual finds them.
func (a *membership) manual() (all []Manual, err error) {
	d, err := install.Detect(a.cfg.system(), a.cfg.Runtimes)
	if err != nil || len(a.names) == 0 || len(a.owned.Files) == 0 {
		return nil, err
	}
	for _, m := range d.Manual {
		all = append(all, Manual{m.Runtime, m.Why, m.Instructions(a.names[0], a.owned.Files[0])})
	}
	return all, nil
}

// places are the directories that runtimes read, each with the first problem in it.
func places(found []install.Found) []*pb.Place {
	var out []*pb.Place
	for _, f := range found {
		i := slices.IndexFunc(out, func(p *pb.Place) bool { return p.GetDir() == f.Dir })
		if i < 0 {
			i = len(out)
			out = append(out, &pb.Place{Runtime: f.Runtime, Dir: f.Dir})
		}
		if out[i].Problem == "" {
			out[i].Problem = f.Problem
		}
	}
	return out
}
