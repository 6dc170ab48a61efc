package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Start lets the registry run, and returns when it serves. say takes each step, in
// words. It goes on when the caller has gone away.
func (r *Registry) Start(ctx context.Context, say func(string)) error {
	return r.change(ctx, "starting", say, func(ctx context.Context) error {
		if r.state() != Stopped {
			say("the registry runs already" + r.pauseNote())
			return nil
		}
		if err := r.choose(func(rec *record) error { rec.State = Running; return nil }); err != nil {
			return err
		}
		if err := r.settle(ctx); err != nil {
			r.Nudge() // and it is tried again
			return fmt.Errorf("the registry cannot start yet, and goes on trying: %w", err)
		}
		say(fmt.Sprintf("the registry serves, with %s", plural(len(r.serving()), "replica")))
		return nil
	})
}

// Stop refuses new requests, lets those in flight end, then ends all replicas. The
// edge goes on to answer agents' handshakes. A start before all has ended is ErrNotNow.
func (r *Registry) Stop(ctx context.Context, say func(string)) error {
	stop := func(rec *record) error { rec.State = Stopped; return nil }
	if err := r.choose(stop); err != nil { // at once, whatever is under way
		return err
	}
	say("new requests are refused; those in flight may end")
	var done []<-chan struct{}
	var stopped context.Context
	err := r.change(ctx, "stopping", say, func(ctx context.Context) (err error) {
		if err := r.choose(stop); err != nil { // a start may have had its turn before
			return err
		}
		stopped = r.whileStopped()
		done, err = r.dismissAll(ctx)
		return err
	})
	if err != nil {
		r.Nudge()
		return err
	}
	ctx, cancel, err := r.detach(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	defer context.AfterFunc(stopped, cancel)()
	err = r.drained(ctx, done)
	if stopped.Err() != nil {
		return fmt.Errorf("%w: the registry was started again meanwhile; `trustcast registry stop` stops it once more", ErrNotNow)
	}
	if err != nil {
		return err
	}
	say("the registry is stopped")
	return nil
}

// drained waits until replicas have ended and no request is in flight.
func (r *Registry) drained(ctx context.Context, done []<-chan struct{}) error {
	for _, ended := range done {
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	limited, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	err := r.cfg.Front.Empty(limited) // reads that no replica answers
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: new requests are refused and no replica runs, but after %s some are in flight still; `trustcast registry stop` waits for them once more (%w)", ErrNotNow, drainLimit, err)
}

// Pause lets new requests wait; nothing in flight is cut. It does not wait for
// what is under way.
func (r *Registry) Pause(say func(string)) error {
	err := r.choose(func(rec *record) error {
		if rec.State == Stopped {
			return fmt.Errorf("%w: the registry is stopped, so there is nothing to pause; `trustcast registry start` starts it", ErrNotNow)
		}
		rec.State = Paused
		return nil
	})
	if err != nil {
		return err
	}
	say("the registry is paused: new requests wait; those in flight go on")
	return nil
}

// Unpause lets those that wait go on.
func (r *Registry) Unpause(say func(string)) error {
	err := r.choose(func(rec *record) error {
		if rec.State == Stopped {
			return fmt.Errorf("%w: the registry is stopped, not paused; `trustcast registry start` starts it", ErrNotNow)
		}
		rec.State = Running
		return nil
	})
	if err != nil {
		return err
	}
	say("the registry serves")
	return nil
}

// Restart replaces each replica by a new one, one after the other: the old one goes
// when the new one serves and its last request has ended. A stopped registry starts.
func (r *Registry) Restart(ctx context.Context, say func(string)) error {
	if r.state() == Stopped {
		return r.Start(ctx, say)
	}
	return r.restart(ctx, say)
}

// restart is Restart that starts nothing.
func (r *Registry) restart(ctx context.Context, say func(string)) error {
	return r.change(ctx, "restarting", say, func(ctx context.Context) error {
		if r.state() == Stopped {
			return fmt.Errorf("%w: the registry was stopped meanwhile; `trustcast registry start` starts it", ErrNotNow)
		}
		if err := r.replaceAll(ctx, r.image(), say); err != nil {
			r.Nudge()
			return err
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		say("all replicas are new" + r.pauseNote())
		return nil
	})
}

// Upgrade is Restart with another image. When a replica of it does not get healthy,
// those that were replaced already go back to the old image, and the error says why.
func (r *Registry) Upgrade(ctx context.Context, image string, say func(string)) error {
	switch {
	case r.cfg.Image == "":
		return fmt.Errorf("%w: the %s engine runs no image: it is upgraded with trustcast itself; with `trustcast server --engine docker` the image can be chosen", ErrInvalid, r.cfg.Engine.Name())
	case image == "":
		return fmt.Errorf("%w: no image is named: give one, like `trustcast registry upgrade --image registry:3`", ErrInvalid)
	}
	return r.change(ctx, "upgrading to "+image, say, func(ctx context.Context) error {
		if r.state() == Stopped {
			return fmt.Errorf("%w: the registry is stopped, so that nothing would tell whether %s works; start it first with `trustcast registry start`", ErrNotNow, image)
		}
		old := r.image()
		if serving := r.serving(); len(serving) > 0 {
			old = serving[0].Image // an outdated one is what there is to go back to
		}
		if err := r.replaceAll(ctx, image, say); err != nil {
			return r.goBack(ctx, old, image, err, say)
		}
		// Until here a crash goes back to the old image, from here on to the new one.
		err := r.choose(func(rec *record) error { rec.Image, rec.From = image, r.cfg.Image; return nil })
		if err != nil {
			return err
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		say("all replicas run " + image + r.pauseNote())
		return nil
	})
}

// pauseNote ends what is said of a registry that has all its replicas, for who wonders
// why it does not answer.
func (r *Registry) pauseNote() string {
	if r.state() != Paused {
		return ""
	}
	return ", and the registry is paused: requests wait until `trustcast registry unpause`"
}

// goBack replaces what an upgrade has replaced, and says why.
func (r *Registry) goBack(ctx context.Context, old, image string, why error, say func(string)) error {
	if ctx.Err() != nil {
		return why // the server stops; its next start goes back
	}
	why = fmt.Errorf("the upgrade to %s failed, and the registry serves with %s as before: %w", image, old, why)
	for _, replica := range r.serving() {
		if replica.Image != image {
			continue
		}
		if err := r.replace(ctx, replica, old, say); err != nil {
			r.Nudge()
			return errors.Join(why, err)
		}
	}
	r.Nudge() // there may be too few
	return why
}

// replaceAll replaces each replica that serves.
func (r *Registry) replaceAll(ctx context.Context, image string, say func(string)) error {
	replicas := r.serving()
	if len(replicas) == 0 {
		return r.begin(ctx, image)
	}
	for i, replica := range replicas {
		say(fmt.Sprintf("replica %d of %d: starting the new one", i+1, len(replicas)))
		if err := r.replace(ctx, replica, image, say); err != nil {
			return err
		}
	}
	return nil
}

// replace starts a new replica, then ends the old one, if the new one still runs.
func (r *Registry) replace(ctx context.Context, old Endpoint, image string, say func(string)) error {
	if err := r.begin(ctx, image); err != nil {
		return err
	}
	replicas := r.serving()
	fresh := replicas[len(replicas)-1]
	alive, err := r.cfg.Engine.Alive(ctx, []string{fresh.ID})
	if err != nil {
		return err
	}
	if !slices.Contains(alive, fresh.ID) {
		return fmt.Errorf("the new replica %s ended by itself soon after its start: see `trustcast registry logs`", fresh.ID)
	}
	say(fmt.Sprintf("replica %s serves; %s ends its last requests", fresh.ID, old.ID))
	_, err = r.dismiss(ctx, old.ID)
	return err
}

// change runs what replaces replicas: one at a time, until its end, which is also
// that of Run.
func (r *Registry) change(ctx context.Context, what string, say func(string), do func(context.Context) error) error {
	ctx, cancel, err := r.detach(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	r.mu.Lock()
	busy := r.busy
	r.mu.Unlock()
	if busy != "" {
		say("waiting until the registry has finished " + busy)
	}
	release, err := hold(ctx, r.turn)
	if err != nil {
		return err
	}
	defer release()
	r.setBusy(what)
	defer r.setBusy("")
	if err := r.find(ctx); err != nil {
		return err
	}
	return do(ctx)
}

// detach returns a context that ends with Run and not with the caller, once Run has
// begun.
func (r *Registry) detach(ctx context.Context) (context.Context, context.CancelFunc, error) {
	select {
	case <-r.begun:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(r.running, cancel)
	return ctx, func() { stop(); cancel() }, nil
}

// plural says "1 replica" or "3 replicas".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
