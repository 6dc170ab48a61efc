package main

import (
	"context"
	"fmt"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

const (
	// settle is how long a server idles before its memory is looked at: long enough for
	// the garbage of its start to be collected and given back.
	settle = 15 * time.Second

	// The burst: so many manifests, and large layers, pushed and pulled at once.
	burstManifests = 1000
	burstLayers    = 4
	burstLayer     = 64 << 20
)

// idle measures what servers cost that nobody asks: after their start and a small
// image, and again after a burst.
func idle(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Idle servers",
		subjects: []string{ours, official},
		unequal: []string{
			"ours keeps a CA, a fleet and an admin socket besides the registry",
			"ours takes the pages of its program that it no longer uses out of its memory when it becomes quiet, and some 9 MiB of them come back within minutes; the system's cache keeps all of them, as it keeps " + official + "'s, until it needs the room. Anonymous memory owes nothing to that",
		},
	}
	small, err := random.Image(1<<20, 4)
	if err != nil {
		return nil, err
	}
	large, err := random.Image(burstLayer, burstLayers)
	if err != nil {
		return nil, err
	}
	running, err := l.idlers(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, s := range t.subjects {
		if err := running[s].push(ctx, small); err != nil {
			return nil, err
		}
	}
	if err := t.addMemory(ctx, running, ""); err != nil {
		return nil, err
	}
	for _, s := range t.subjects {
		if err := running[s].burst(ctx, large); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
	}
	if err := t.addMemory(ctx, running, " after a burst"); err != nil {
		return nil, err
	}
	t.atMost("resident memory", t.row("resident", "MiB").against(official), 0.6)
	t.atMost("resident memory after a burst", t.row("resident after a burst", "MiB").against(official), 0.6)
	return t, nil
}

// idlers starts the servers, and adds how large their programs are.
func (l *lab) idlers(ctx context.Context, t *table) (map[string]*contender, error) {
	us, err := l.trustcast(ctx)
	if err != nil {
		return nil, err
	}
	they, err := l.registry3(ctx, false)
	if err != nil {
		return nil, err
	}
	running := map[string]*contender{ours: us, official: they}
	for s, c := range running {
		info, err := os.Stat(c.cmd.Path)
		if err != nil {
			return nil, err
		}
		t.row("program, stripped", "MB").add(s, float64(info.Size())/1e6)
	}
	return running, nil
}

// addMemory waits until the servers have settled, and adds what they hold.
func (t *table) addMemory(ctx context.Context, running map[string]*contender, when string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	for s, c := range running {
		m, err := c.memory()
		if err != nil {
			return err
		}
		t.row("resident"+when, "MiB").add(s, megabytes(m.resident))
		t.row("anonymous"+when, "MiB").add(s, megabytes(m.anonymous))
		t.row("of files"+when, "MiB").add(s, megabytes(m.resident-m.anonymous))
	}
	return nil
}

// burst pushes an image, asks for its manifest many times and for its layers at once.
func (c *contender) burst(ctx context.Context, image v1.Image) error {
	if err := c.push(ctx, image); err != nil {
		return err
	}
	manifest, layers, err := pathsOf(image)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, path := range layers {
		go func() { failed <- c.pull(c.at(path, ""), 1) }()
	}
	go func() { failed <- c.pull(c.at(manifest, accepted), burstManifests) }()
	for range len(layers) + 1 {
		if e := <-failed; e != nil {
			err = e
		}
	}
	return err
}

// pull asks n times over one connection.
func (c *contender) pull(t target, n int) error {
	one := client{target: t, buffer: make([]byte, 256<<10)}
	defer one.close()
	for range n {
		if _, err := one.ask(); err != nil {
			return fmt.Errorf("GET %s: %w", t.path, err)
		}
	}
	return nil
}

// pathsOf an image that was pushed: of its manifest, and of its layers.
func pathsOf(image v1.Image) (manifest string, layers []string, err error) {
	const repository = "/v2/bench/image/"
	digest, err := image.Digest()
	if err != nil {
		return "", nil, err
	}
	all, err := image.Layers()
	if err != nil {
		return "", nil, err
	}
	for _, layer := range all {
		d, err := layer.Digest()
		if err != nil {
			return "", nil, err
		}
		layers = append(layers, repository+"blobs/"+d.String())
	}
	return repository + "manifests/" + digest.String(), layers, nil
}
