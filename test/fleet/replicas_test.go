//go:build linux

package fleet_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// settleBound is far above the second that replicas take to come or go here.
const settleBound = time.Minute

// replicas asks the engine, not the server, which containers run for a registry on the
// run's volume: the ID of each one's image by its own.
func (f *fleet) replicas(domain string) (map[string]string, error) {
	out, err := command("docker", "ps", "--quiet", "--no-trunc", "--filter", "label=io.trustcast.domain="+domain, "--filter", "volume="+f.run.name())
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, id := range strings.Fields(out) {
		image, err := command("docker", "inspect", "--format", "{{.Image}}", id)
		if err != nil {
			return nil, err // it ended just now
		}
		found[id] = strings.TrimSpace(image)
	}
	return found, nil
}

// await waits until as many replicas run as there should be, and each is right. An old
// one may outlive the command that replaced it, by what it has yet to answer.
func (l *life) await(what string, right func(id, image string) bool) error {
	return until(settleBound, what, func() (bool, string) {
		found, err := l.f.replicas(domain)
		ok := err == nil && len(found) == lifeReplicas
		for id, image := range found {
			ok = ok && right(id, image)
		}
		return ok, fmt.Sprint(found, err)
	})
}

// restart wants none of the replicas to be one from before.
func (l *life) restart() error {
	before, err := l.f.replicas(domain)
	if err != nil {
		return err
	}
	return l.during(restarts, func() error {
		if _, err := l.f.server.command("registry", "restart"); err != nil {
			return err
		}
		return l.await("a restart that leaves no replica from before", func(id, _ string) bool { return before[id] == "" })
	})
}

// upgrade wants every replica to run the image that was asked for.
func (l *life) upgrade(to int) error {
	return l.during(upgrades, func() error {
		if _, err := l.f.server.command("registry", "upgrade", "--image", l.images[to]); err != nil {
			return err
		}
		return l.await("an upgrade to "+l.images[to]+", "+l.ids[to], func(_, image string) bool { return image == l.ids[to] })
	})
}

// kill kills a replica now and then.
func (l *life) kill() {
	dice := rand.New(rand.NewPCG(1, 2))
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(killEvery/2 + rand.N(killEvery)):
		}
		if err := l.killOne(dice); err != nil {
			l.failed("after a kill: %v", err)
		}
	}
}

// killOne kills a replica and waits until there is another for it.
func (l *life) killOne(dice *rand.Rand) error {
	found, err := l.f.replicas(domain)
	if err != nil || len(found) == 0 {
		return nil //nolint:nilerr // one ended while it was looked at; the next kill looks again
	}
	ids := slices.Sorted(maps.Keys(found))
	return l.during(kills, func() error {
		begin := time.Now()
		if _, err := command("docker", "kill", "--signal", "KILL", ids[dice.IntN(len(ids))]); err != nil {
			return errMissed // it had ended meanwhile
		}
		l.mu.Lock()
		l.blows = append(l.blows, interval{begin, time.Now()})
		l.mu.Unlock()
		return l.await("a replica for the killed one", func(string, string) bool { return true })
	})
}
