// Package agent keeps a Docker host's trust in step with its servers: it joins,
// holds a stream, installs the bundle that is wanted, proves that it works and
// says so, for each membership by itself.
//
// A membership's loop owns all its state and asks one pure question (Decide): is
// what I have what is wanted? Gossip, the slow timer and file events only wake it.
// It knows no phases of a rotation, and trusts nobody but the server of its
// enrolment. Run starts all goroutines and awaits them.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// lookAfter something happened in the data directory it is looked at: most of it
	// is a membership's own writing, several files at once.
	lookAfter = 50 * time.Millisecond
	// lookEvery when there is no membership whose ticks do it.
	lookEvery = 10 * time.Second
)

// agent is the process: it serves the memberships of this host, each by itself, and
// notices those that come and go. Its loop owns all of it.
type agent struct {
	cfg  Config
	log  *slog.Logger
	run  *errgroup.Group
	all  map[string]*seat // that are served, by their directories
	news chan struct{}    // one slot: look for what changed
	// files has one slot, too: so does what happened in the data directory, a
	// little later.
	files    chan struct{}
	watched  map[string]bool
	joining  *Config // the membership that Run was told to join; nil for none
	starting bool    // the first look, for whose memberships Ready waits
	joined   bool    // a look found a membership
	shown    int     // how many memberships people were told of; -1: nothing yet
	ready    bool
}

// Run keeps the host in step with each server that it has joined until ctx ends. It
// joins first when it has a token and no identity of that server. The servers may be
// away for as long as they like: the last-good state is installed and kept meanwhile.
//
// What is wrong with one membership does not touch the others: it is logged, shown by
// ReadAll, and tried again. With only one, it is the error of Run.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	s, err := openStore(cfg.DataDir)
	if err != nil {
		return err
	}
	unlock, err := s.take(runFile)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	a := &agent{
		cfg: cfg, log: cfg.Log, run: g, all: map[string]*seat{}, watched: map[string]bool{}, starting: true, shown: -1,
		news: make(chan struct{}, 1), files: make(chan struct{}, 1),
	}
	g.Go(func() error {
		defer cancel()
		return a.tend(ctx)
	})
	return g.Wait()
}

// tend serves what is there until ctx ends, or nothing is there any more.
func (a *agent) tend(ctx context.Context) error {
	if a.cfg.Token != "" {
		one, err := a.cfg.joining()
		if err != nil {
			return err
		}
		a.joining = &one
	}
	var alive <-chan time.Time
	if a.cfg.Alive != nil {
		ticker := time.NewTicker(a.cfg.AliveEvery)
		defer ticker.Stop()
		alive = ticker.C
	}
	for {
		if err := a.look(ctx); err != nil {
			return err
		}
		if len(a.all) == 0 && !a.cfg.AwaitJoin {
			return a.nothing()
		}
		a.starting = false
		a.tellServed()
		a.tellReady()
		if !a.wait(ctx, alive) {
			return nil
		}
	}
}

// wait ends when there is a reason to look again; false when ctx has.
func (a *agent) wait(ctx context.Context, alive <-chan time.Time) bool {
	var soon, slow <-chan time.Time
	if len(a.all) == 0 {
		slow = time.After(lookEvery)
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.news:
			return true
		case <-soon:
			return true
		case <-slow:
			return true
		case <-a.files:
			if soon == nil {
				soon = time.After(lookAfter)
			}
		case now := <-alive:
			if a.turning(now) {
				a.cfg.Alive()
			}
		}
	}
}

// look serves each membership that is new and lets go of each that is to be left.
func (a *agent) look(ctx context.Context) error {
	a.watch(ctx, a.cfg.DataDir)
	if (store{a.cfg.DataDir}).has(registriesDir) {
		a.watch(ctx, filepath.Join(a.cfg.DataDir, registriesDir))
	}
	for dir, s := range a.all {
		if s.over() {
			delete(a.all, dir)
			called := s.called
			if s := (store{dir}); s.has(leavingFile) || !s.has(identityFile) && a.joined {
				a.log.Info("left", "registry", called)
			}
		}
	}
	dirs, err := seats(a.cfg.DataDir)
	if err != nil {
		return err
	}
	a.joined = a.joined || len(dirs) > 0
	if a.starting && a.joining != nil && !slices.Contains(dirs, a.joining.DataDir) {
		dirs = append(dirs, a.joining.DataDir)
	}
	for _, dir := range dirs {
		s, leaving := a.all[dir], store{dir}.leaving()
		switch {
		case s == nil && !leaving:
			a.serve(ctx, dir, len(dirs) > 1)
		case s != nil && leaving:
			s.stop()
		}
	}
	return nil
}

// watch nudges when something happens in dir. Without events, the ticks of the
// memberships do.
func (a *agent) watch(ctx context.Context, dir string) {
	if a.watched[dir] {
		return
	}
	a.watched[dir] = true
	a.run.Go(func() error {
		if err := a.cfg.WatchFile(ctx, dir, func() { nudge(a.files) }); err != nil && ctx.Err() == nil {
			a.log.Warn("registries that are joined or left are found by the slow check alone", "err", fmt.Errorf("watch %s: %w", dir, err))
		}
		return nil
	})
}

// nothing is left to serve, or there never was anything.
func (a *agent) nothing() error {
	dirs, err := seats(a.cfg.DataDir)
	switch {
	case err != nil:
		return err
	case len(dirs) > 0 && a.starting:
		return errUnfinished
	case a.starting:
		return a.cfg.notJoined()
	case !a.joined:
		return nil // it could not join, and the membership's error says why
	}
	a.log.Info("this host has left its last registry: nothing is left to do")
	return nil
}

// serve begins to serve a membership, of several or not.
func (a *agent) serve(ctx context.Context, dir string, several bool) {
	cfg := a.cfg.at(dir)
	if a.starting && a.joining != nil && a.joining.DataDir == dir {
		cfg = *a.joining
	}
	n := 0
	for dir != a.cfg.DataDir && (n == 0 || a.taken(n)) {
		n++
	}
	e, _ := namesAt(dir)
	called := firstOf(e.Domain, cfg.Server, filepath.Base(dir))
	if several {
		cfg.Log = cfg.Log.With("registry", called)
	}
	if !a.starting {
		a.log.Info("joined", "registry", called, "server", e.Server, "host", e.Name)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := newSeat(cfg.gossipFor(n), n, cancel, func() { nudge(a.news) })
	s.first, s.called = a.starting, called
	a.all[dir] = s
	a.run.Go(func() error {
		defer cancel()
		return s.keep(ctx)
	})
}

func (a *agent) taken(n int) bool {
	for _, s := range a.all {
		if s.n == n {
			return true
		}
	}
	return false
}

// tellServed says how many registries are served, when that has changed.
func (a *agent) tellServed() {
	n := len(a.all)
	if n == a.shown {
		return
	}
	a.shown = n
	if n == 0 {
		a.log.Info("waiting for `trustcast-agent join`: this host has joined no registry")
	}
	if a.cfg.Serves != nil {
		a.cfg.Serves(n)
	}
}

// tellReady says so, once, when each membership of the start has been tried.
func (a *agent) tellReady() {
	if a.ready || a.cfg.Ready == nil {
		return
	}
	for _, s := range a.all {
		if s.first && !closed(s.tried) {
			return
		}
	}
	a.ready = true
	a.cfg.Ready()
}

// turning asks every loop for a sign of life, and says whether none has failed to give
// one for too long.
func (a *agent) turning(now time.Time) bool {
	all := true
	for dir, s := range a.all {
		if !s.beats(now) {
			all = false
			a.log.Error("the loop of a membership hangs", "dir", dir, "since", s.beaten)
		}
	}
	return all
}

// nudge fills a channel of one slot.
func nudge(slot chan<- struct{}) {
	select {
	case slot <- struct{}{}:
	default:
	}
}
