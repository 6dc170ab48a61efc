package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trustcast/trustcast/certs"
)

// JoinResult is what joining made.
type JoinResult struct {
	HostID, Name, Domain string
	Generation           uint64
	Fingerprint          certs.Fingerprint
	// Files are right; Wrong are those that are not.
	Files []string
	Wrong []FileStatus
	// Manual are runtimes here whose users have to do something themselves.
	Manual []Manual
	// Already: the host was joined before.
	Already bool
	// Running: an agent runs that keeps the bundle up to date.
	Running bool
}

// Join enrols this machine if needed, installs the bundle and returns; Run keeps it up
// to date, also when it runs already. Joining again is fine, and joining another server
// adds a registry to those that are there.
func Join(ctx context.Context, cfg Config) (JoinResult, error) {
	cfg, err := cfg.withDefaults().joining()
	if err != nil {
		return JoinResult{}, err
	}
	r, err := cfg.join(ctx)
	if err == nil && r.Running {
		cfg.awaitServed(ctx)
	}
	return r, err
}

// servedWithin is how long Join waits for an agent that runs to take over what was
// joined, so that a status says so at once.
const servedWithin = 5 * time.Second

func (cfg Config) awaitServed(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	for {
		if s, err := cfg.readStatus(); err != nil || s.Connected {
			return
		}
		select {
		case <-ctx.Done():
			return // it tries on, and a status says why
		case <-time.After(leaveAgain):
		}
	}
}

func (cfg Config) join(ctx context.Context) (JoinResult, error) {
	before, _ := cfg.readStatus() // an error means not joined, or open says it better
	a, release, err := open(ctx, cfg)
	if errors.Is(err, ErrRunning) && before.HostID != "" {
		r := before.result(true)
		r.Running = true
		e, _ := namesAt(cfg.DataDir) // before was read from it
		if err := e.isOf(cfg.Token); err != nil {
			return JoinResult{}, err
		}
		if cfg.Server != "" && !strings.EqualFold(cfg.Server, e.Server) {
			return JoinResult{}, fmt.Errorf("this host has joined %s at %s, and %w: for the address %s stop the agent, run this line again, and start the agent", e.Domain, e.Server, ErrRunning, cfg.Server)
		}
		return r, nil
	}
	if err != nil {
		return JoinResult{}, err
	}
	defer release()
	if a.store.has(leavingFile) { // of a leave that was killed
		if err := a.store.remove(leavingFile); err != nil {
			return JoinResult{}, err
		}
	}
	a.link = newLink(a)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error {
		defer cancel()
		return a.link.greet(ctx)
	})
	if err := g.Wait(); err != nil {
		if a.oldAddress != "" {
			return JoinResult{}, unreachable(err, "this host's server did not answer at %s (%s): %s stays joined at %s", cfg.Server, cause(err), a.enrolment.Domain, a.oldAddress)
		}
		return JoinResult{}, unreachable(err, "this host has joined, but its first contact failed (%s): `trustcast-agent run` tries again", cause(err))
	}
	if a.refused != "" {
		return JoinResult{}, fmt.Errorf("this host has joined, but does not install what the server wants: %s", a.refused)
	}
	after, err := cfg.readStatus()
	if err != nil {
		return JoinResult{}, err
	}
	for _, f := range after.Files {
		if !f.OK && !f.Aside {
			return JoinResult{}, fmt.Errorf("this host has joined, but the CA is not in effect: %s; mend that, then `trustcast-agent run` installs it", firstOf(a.missing, f.Problem))
		}
	}
	r := after.result(before.HostID != "")
	r.Running = store{cfg.base()}.held(runFile)
	r.Manual, err = a.manual()
	return r, err
}

func (s Status) result(already bool) JoinResult {
	r := JoinResult{HostID: s.HostID, Name: s.Name, Domain: s.Domain, Generation: s.Generation, Fingerprint: certs.Fingerprint(s.Fingerprint), Already: already}
	for _, f := range s.Files {
		if f.OK {
			r.Files = append(r.Files, f.Path)
		} else {
			r.Wrong = append(r.Wrong, f)
		}
	}
	return r
}
