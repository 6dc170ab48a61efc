package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

// retryMost is how long it takes at most until what failed is tried again.
const retryMost = 30 * time.Second

// Run keeps the replicas as they should be, and removes abandoned uploads, until
// ctx ends; then it returns nil. It is called once. Replicas of Docker outlive it.
func (r *Registry) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	r.running = ctx
	close(r.begun)
	g.Go(func() error { return r.cfg.Engine.Run(ctx, r.Nudge) })
	g.Go(func() error { r.keep(ctx); return nil })
	if r.cfg.Driver != nil && r.cfg.Purge.Enabled {
		g.Go(func() error { return r.keepPurging(ctx) })
	}
	err := g.Wait()
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.partings.Wait()
	return err
}

// keep looks when it is nudged, and after a failure soon.
func (r *Registry) keep(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.MaxInterval = retryMost
	for ctx.Err() == nil {
		err := r.look(ctx)
		if ctx.Err() != nil {
			return
		}
		r.setProblem(err)
		var again <-chan time.Time
		if err != nil {
			again = time.After(retry.NextBackOff())
		} else {
			retry.Reset()
		}
		select {
		case <-ctx.Done():
		case <-r.nudged:
		case <-again:
		}
	}
}

// look brings the replicas to what was chosen.
func (r *Registry) look(ctx context.Context) error {
	release, err := hold(ctx, r.turn)
	if err != nil {
		return nil // the end
	}
	defer release()
	if err := r.find(ctx); err != nil {
		return err
	}
	if r.state() == Stopped {
		_, err := r.dismissAll(ctx)
		return err
	}
	if err := r.dropDead(ctx); err != nil {
		return err
	}
	if err := r.dropSurplus(ctx); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return err
	}
	return r.renew(ctx)
}

// find takes over, once, what an earlier life of the server left.
func (r *Registry) find(ctx context.Context) error {
	r.mu.Lock()
	done := r.found
	r.mu.Unlock()
	if done {
		return nil
	}
	left, err := r.cfg.Engine.Found(ctx, r.image())
	if err != nil {
		return err
	}
	if len(left) > 0 {
		r.cfg.Log.Info("replicas taken over", "replicas", ids(left))
		r.serve(left)
	}
	r.mu.Lock()
	r.found = true
	r.mu.Unlock()
	return nil
}

// dropDead forgets replicas that ended by themselves, and removes what is left of
// them.
func (r *Registry) dropDead(ctx context.Context) error {
	replicas := r.serving()
	if len(replicas) == 0 {
		return nil
	}
	alive, err := r.cfg.Engine.Alive(ctx, ids(replicas))
	if err != nil {
		return err
	}
	for _, replica := range replicas {
		if slices.Contains(alive, replica.ID) {
			continue
		}
		r.cfg.Log.Warn("a replica has ended by itself", "replica", replica.ID)
		r.serve(without(r.serving(), replica.ID))
		if err := r.cfg.Engine.Close(ctx, replica.ID); err != nil {
			return err
		}
	}
	return nil
}

// dropSurplus ends replicas above the wanted number.
func (r *Registry) dropSurplus(ctx context.Context) error {
	for replicas := r.serving(); len(replicas) > r.cfg.Replicas; replicas = r.serving() {
		if _, err := r.dismiss(ctx, replicas[0].ID); err != nil {
			return err
		}
	}
	return nil
}

// fill starts replicas until there are enough.
func (r *Registry) fill(ctx context.Context) error {
	for len(r.serving()) < r.cfg.Replicas {
		if err := r.begin(ctx, r.image()); err != nil {
			return err
		}
	}
	return nil
}

// renew replaces replicas that are outdated. They serve until a new one does: the
// image may not be there to be had.
func (r *Registry) renew(ctx context.Context) error {
	for _, replica := range r.serving() {
		if !replica.Outdated {
			continue
		}
		image := r.image()
		if err := r.replace(ctx, replica, image, func(string) {}); err != nil {
			return fmt.Errorf("the registry serves with %s as before, and not with %s: %w", replica.Image, image, err)
		}
	}
	return nil
}

// settle is fill for a change that has succeeded: with it, what was wrong is over.
func (r *Registry) settle(ctx context.Context) error {
	err := r.fill(ctx)
	if err == nil {
		r.setProblem(nil)
	}
	return err
}

// begin starts one more replica, which serves from then on.
func (r *Registry) begin(ctx context.Context, image string) error {
	replica, err := r.cfg.Engine.Open(ctx, image)
	if err != nil {
		return err
	}
	r.cfg.Log.Info("replica serves", "replica", replica.ID, "image", replica.Image)
	r.serve(append(r.serving(), replica))
	return nil
}

// maxLeaving is how many replicas may be ending their last requests at the same time:
// clients decide how long that takes.
const maxLeaving = 16

// dismiss takes a replica out and ends it when its last request has ended, which a slow
// client may put off for long: nobody waits for that who does not wait for done.
func (r *Registry) dismiss(ctx context.Context, id string) (done <-chan struct{}, err error) {
	select {
	case r.leaving <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.serve(without(r.serving(), id))
	ended := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		<-r.leaving
		return nil, context.Canceled
	}
	r.partings.Go(func() {
		defer close(ended)
		defer func() { <-r.leaving }()
		r.end(id)
	})
	return ended, nil
}

// end lets a replica finish what it began, then ends it. When the server stops, one
// that has not finished is left to the next life.
func (r *Registry) end(id string) {
	drain, cancel := context.WithTimeout(r.running, drainLimit)
	defer cancel()
	if err := r.cfg.Front.Drain(drain, id); err != nil {
		if r.running.Err() != nil {
			return
		}
		r.cfg.Log.Warn("requests are cut", "replica", id, "err", err)
	}
	if err := r.cfg.Engine.Close(r.running, id); err != nil {
		r.cfg.Log.Warn("a replica that has left is still there; the next start removes it", "replica", id, "err", err)
		return
	}
	r.cfg.Log.Info("replica ended", "replica", id)
}

// dismissAll dismisses every replica.
func (r *Registry) dismissAll(ctx context.Context) (done []<-chan struct{}, err error) {
	for _, replica := range r.serving() {
		ended, err := r.dismiss(ctx, replica.ID)
		if err != nil {
			return done, err
		}
		done = append(done, ended)
	}
	return done, nil
}

func ids(replicas []Endpoint) []string {
	out := make([]string, len(replicas))
	for i, replica := range replicas {
		out[i] = replica.ID
	}
	return out
}

func without(replicas []Endpoint, id string) []Endpoint {
	return slices.DeleteFunc(replicas, func(e Endpoint) bool { return e.ID == id })
}
