package main

import (
	"context"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

// The contenders of auth and blobs.
const (
	ours       = "trustcast"
	plainFile  = "nginx, a file"
	official   = "registry 3.1.2"
	officialIn = "registry 3.1.2, bcrypt 10"
)

// connections that a load keeps open, as FACTS measured with.
const connections = 8

// auth measures sign-in and small answers.
func auth(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Sign-in, /v2/ and manifests",
		subjects: []string{ours, official, officialIn},
		unequal: []string{
			"ours signs every request in, by a digest of what bcrypt found right once; " + official + " without sign-in asks nobody for a password, and with it runs bcrypt (cost 10, as ours) at each request",
			"the client runs on the same processors, so that rates of cheap answers are bounded by it; processor time a request is the server's alone",
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
	closed, err := l.registry3(ctx, true)
	if err != nil {
		return nil, err
	}
	image, err := random.Image(1<<20, 4)
	if err != nil {
		return nil, err
	}
	contenders := map[string]*contender{ours: us, official: open, officialIn: closed}
	for _, c := range contenders {
		if err := c.push(ctx, image); err != nil {
			return nil, err
		}
	}
	for range l.rounds {
		for _, s := range t.subjects {
			c := contenders[s]
			for _, q := range []struct{ what, path, accept string }{{"GET /v2/", "/v2/", ""}, {"manifest by tag", "/v2/bench/image/manifests/v1", accepted}} {
				if err := measure(ctx, t, s, q.what, c, c.at(q.path, q.accept), time.Second); err != nil {
					return nil, err
				}
			}
		}
	}
	base, manifest, cost := t.row("GET /v2/", perSecond), t.row("manifest by tag", perSecond), t.row("manifest by tag, processor", micros)
	t.atLeast("signed-in /v2/ against bcrypt at each request", base.against(officialIn), 600)
	t.atLeast("signed-in manifest against bcrypt at each request", manifest.against(officialIn), 200)
	t.atMost("processor time of a manifest against "+official+" without sign-in", cost.against(official), 0.35)
	t.headline("Signed-in clients get %s times as many manifests a second as from "+official+", which checks the password anew at each request.", number(manifest.against(officialIn).ratio()))
	t.headline("A manifest costs the server %s of the processor time that it costs "+official+" without any sign-in.", number(cost.against(official).ratio()))
	return t, nil
}

const (
	perSecond = "requests/s"
	micros    = "µs of server a request"
)

// costly takes processor time.
type costly interface {
	cpu() (time.Duration, error)
}

// measure adds a rate, and the server's processor time a request.
func measure(ctx context.Context, t *table, subject, what string, c costly, at target, d time.Duration) error {
	if _, err := load(ctx, at, connections, d/5); err != nil { // warm
		return err
	}
	before, err := c.cpu()
	if err != nil {
		return err
	}
	n, err := load(ctx, at, connections, d)
	if err != nil {
		return err
	}
	after, err := c.cpu()
	if err != nil {
		return err
	}
	t.row(what, perSecond).add(subject, n.rate())
	t.row(what+", processor", micros).add(subject, float64((after-before).Microseconds())/float64(n.requests))
	return nil
}
