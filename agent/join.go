package agent

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/certs"
)

// JoinResult is what joining made.
type JoinResult struct {
	HostID, Name, Domain string
	Generation           uint64
	Fingerprint          certs.Fingerprint
	Files                []string
	// Already: the host was joined before.
	Already bool
}

// Join enrols this machine if needed, installs the bundle and returns; Run keeps
// it up to date. Joining again is fine.
func Join(ctx context.Context, cfg Config) (JoinResult, error) {
	cfg = cfg.withDefaults()
	before, _ := ReadStatus(cfg) // an error means not joined, or open says it better
	a, release, err := open(ctx, cfg)
	if errors.Is(err, ErrRunning) && before.HostID != "" {
		return before.result(true), nil
	}
	if err != nil {
		return JoinResult{}, err
	}
	defer release()
	if a.boot, err = a.store.nextBoot(); err != nil {
		return JoinResult{}, err
	}
	a.link = newLink(a)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error {
		defer cancel()
		return a.link.visit(ctx, true)
	})
	if err := g.Wait(); err != nil {
		return JoinResult{}, fmt.Errorf("this host has joined, but its first contact failed (%w): `trustcast-agent run` tries again", err)
	}
	if a.refused != "" {
		return JoinResult{}, fmt.Errorf("this host has joined, but does not install what the server wants: %s", a.refused)
	}
	after, err := ReadStatus(Config{DataDir: cfg.DataDir, DockerCertsDir: cfg.DockerCertsDir})
	if err != nil {
		return JoinResult{}, err
	}
	for _, f := range after.Files {
		if !f.OK {
			return JoinResult{}, fmt.Errorf("this host has joined, but the CA is not in effect: %s; mend that, then `trustcast-agent run` installs it", firstOf(a.missing, f.Problem))
		}
	}
	return after.result(before.HostID != ""), nil
}

func (s Status) result(already bool) JoinResult {
	r := JoinResult{HostID: s.HostID, Name: s.Name, Domain: s.Domain, Generation: s.Generation, Fingerprint: certs.Fingerprint(s.Fingerprint), Already: already}
	for _, f := range s.Files {
		r.Files = append(r.Files, f.Path)
	}
	return r
}
