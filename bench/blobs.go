package main

import (
	"context"
	"errors"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

// blobSize is that of a large layer, as FACTS measured with.
const blobSize = 256 << 20

// blobs measures large answers and new connections.
func blobs(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Blobs of 256 MiB, and new connections",
		subjects: []string{ours, official, plainFile},
		unequal: []string{
			"ours signs every request in; " + official + " asks nobody for a password, and " + plainFile + " knows nothing of registries: it is the limit",
			"session tickets are off for ours and on for the others; this client takes none, as Docker, so that none are sent",
		},
	}
	us, err := l.trustcast(ctx)
	if err != nil {
		return nil, err
	}
	open, err := l.registry3(ctx, false)
	if err != nil {
		return nil, err
	}
	image, err := random.Image(blobSize, 1)
	if err != nil {
		return nil, err
	}
	layer, err := layerOf(image)
	if err != nil {
		return nil, err
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	content, err := layers[0].Compressed()
	if err != nil {
		return nil, err
	}
	file, err := l.nginx(ctx, content)
	if err := errors.Join(err, content.Close()); err != nil {
		return nil, err
	}
	contenders := map[string]*contender{ours: us, official: open, plainFile: file}
	paths := map[string]string{ours: "/v2/bench/image/blobs/" + layer, official: "/v2/bench/image/blobs/" + layer, plainFile: "/blob"}
	for _, c := range []*contender{us, open} {
		if err := c.push(ctx, image); err != nil {
			return nil, err
		}
	}
	for range l.rounds {
		for _, s := range t.subjects {
			c := contenders[s]
			for what, n := range map[string]int{"1 connection": 1, "4 connections": 4} {
				if err := throughput(ctx, t, s, what, c, c.at(paths[s], ""), n); err != nil {
					return nil, err
				}
			}
			if s == plainFile {
				continue
			}
			fresh := c.target
			fresh.fresh = true
			if err := measure(ctx, t, s, "new connections, GET /v2/", c, fresh, time.Second); err != nil {
				return nil, err
			}
		}
	}
	rate, cost := t.row("blob, 4 connections", mibPerSecond), t.row("blob, 4 connections, processor", microsMiB)
	t.atLeast("blob over four connections", rate.against(official), 1.05)
	t.atLeast("blob over four connections against "+plainFile, rate.against(plainFile), 0.9)
	t.atMost("processor time of it", cost.against(official), 0.85)
	t.atLeast("new connections a second", t.row("new connections, GET /v2/", perSecond).against(official), 1)
	return t, nil
}

const (
	mibPerSecond = "MiB/s"
	microsMiB    = "µs of server a MiB"
)

// throughput adds the rate of large answers, and the server's processor time a MiB.
func throughput(ctx context.Context, t *table, subject, what string, c costly, at target, connections int) error {
	before, err := c.cpu()
	if err != nil {
		return err
	}
	n, err := load(ctx, at, connections, 2*time.Second)
	if err != nil {
		return err
	}
	after, err := c.cpu()
	if err != nil {
		return err
	}
	t.row("blob, "+what, mibPerSecond).add(subject, megabytes(float64(n.bytes))/n.took.Seconds())
	t.row("blob, "+what+", processor", microsMiB).add(subject, float64((after-before).Microseconds())/megabytes(float64(n.bytes)))
	return nil
}
