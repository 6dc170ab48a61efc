package registry

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Logs gives send what each replica said: the last tail lines (0: all that are kept),
// and with follow what comes until ctx ends. send is called by one at a time.
func (r *Registry) Logs(ctx context.Context, tail int, follow bool, send func(id string, text []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-r.begun:
		defer context.AfterFunc(r.running, cancel)()
	case <-ctx.Done():
		return ctx.Err()
	}
	g, ctx := errgroup.WithContext(ctx)
	var one sync.Mutex
	for _, replica := range r.serving() {
		g.Go(func() error {
			return r.cfg.Engine.Logs(ctx, replica.ID, tail, follow, sender(func(text []byte) error {
				one.Lock()
				defer one.Unlock()
				return send(replica.ID, text)
			}))
		})
	}
	return g.Wait()
}

// sender is a writer.
type sender func([]byte) error

// Write sends p.
func (s sender) Write(p []byte) (int, error) { return len(p), s(p) }
