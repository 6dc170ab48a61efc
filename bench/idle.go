package main

import (
	"context"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

// settle is how long a server idles before its memory is looked at: long enough for the
// garbage of its start to be collected and given back.
const settle = 15 * time.Second

// idle measures what servers cost that nobody asks.
func idle(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Idle servers",
		subjects: []string{ours, official},
		unequal:  []string{"ours keeps a CA, a fleet and an admin socket besides the registry"},
	}
	image, err := random.Image(1<<20, 4)
	if err != nil {
		return nil, err
	}
	start := map[string]func() (*contender, error){
		ours:     func() (*contender, error) { return l.trustcast(ctx) },
		official: func() (*contender, error) { return l.registry3(ctx, false) },
	}
	running := map[string]*contender{}
	for _, s := range t.subjects {
		c, err := start[s]()
		if err != nil {
			return nil, err
		}
		if err := c.push(ctx, image); err != nil {
			return nil, err
		}
		running[s] = c
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(settle):
	}
	for s, c := range running {
		m, err := c.memory()
		if err != nil {
			return nil, err
		}
		t.row("resident", "MiB").add(s, megabytes(m.resident))
		t.row("anonymous", "MiB").add(s, megabytes(m.anonymous))
	}
	t.atMost("resident memory", t.row("resident", "MiB").over(official), 0.6)
	return t, nil
}
