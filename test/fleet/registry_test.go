//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/trustcast/trustcast/test/images"
)

const (
	lifeHosts, lifeReplicas                = 3, 2
	wantRestarts, wantUpgrades, wantSweeps = 20, 10, 10
	wantKills                              = 5
	// killEvery is about how often a replica is killed.
	killEvery = 3 * time.Second
	// wantPulls is the least on each host.
	wantPulls = 10
)

// life is a registry whose replicas are replaced, killed and swept behind while
// real engines pull and push.
type life struct {
	f      *fleet
	images [2]string // to upgrade to, back and forth
	ids    [2]string // of the images
	client *http.Transport
	loops  *pulls
	stop   chan struct{}
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	counts   tally
	pushed   map[string]push // by image
	changes  []change
	blows    []interval // of the kills alone
	failures []string
}

// TestRegistryLife restarts, upgrades and sweeps a registry on Docker, and kills its
// replicas, while three engines pull and push: no pull fails, no push is lost. What the
// engines try again is counted, so that it hides no failure.
func TestRegistryLife(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("registry's life: " + why)
	}
	l := &life{stop: make(chan struct{}), counts: tally{}, pushed: map[string]push{}}
	begin := time.Now()
	l.start(t)
	blobs, err := l.f.server.blobGets()
	must(t, err)
	l.loops = startPulls(appImage, l.f.hosts)
	for i, h := range l.f.hosts {
		l.wg.Go(func() { l.push(h, i) })
	}
	l.wg.Go(l.kill)
	l.change(t)
	close(l.stop)
	l.wg.Wait()
	attempted := l.loops.end(t, &l.f.sum)
	after, err := l.f.server.blobGets()
	must(t, err)
	l.compare(t)
	t.Logf("registry's life: %v; pulls attempted %d, pulls failed %d, blob GETs %d, images pushed and pulled again %d; %v in all",
		l.counts, attempted, l.f.sum.failed, after-blobs, len(l.pushed), time.Since(begin).Round(time.Second))
	if want := (attempted - l.f.sum.failed) * blobsPerPull; after-blobs < want {
		t.Errorf("the edge served %d blobs for %d pulls, want %d: some pulls fetched nothing", after-blobs, attempted, want)
	}
	if direct, err := l.f.server.directly(); err != nil || direct > 0 {
		t.Errorf("%d reads reached no replica (%v)", direct, err)
	}
	l.checkCounts(t)
	l.checkOverlaps(t)
	l.checkTries(t)
	if len(l.failures) > 0 {
		t.Errorf("failures:\n%s", strings.Join(l.failures, "\n"))
	}
}

// start makes the fleet and the registry.
func (l *life) start(t *testing.T) {
	t.Helper()
	l.images = [2]string{images.Registry(t), images.RegistryNext(t)}
	for i, image := range l.images {
		id, err := command("docker", "image", "inspect", "--format", "{{.Id}}", image)
		must(t, err)
		l.ids[i] = strings.TrimSpace(id)
	}
	if l.ids[0] == l.ids[1] {
		t.Fatalf("%v are one image: an upgrade would change nothing", l.images)
	}
	// Docker 20.10 takes 1 for one try and one more; it takes no 0.
	l.f = newFleet(t, lifeHosts, "--max-download-attempts", "1")
	_, err := l.f.server.commandInput(password+"\n", "init", "--domain", domain, "--user", user, "--password-stdin", "--engine", "docker", "--volume", l.f.run.name())
	must(t, err)
	must(t, l.f.server.start("trustcast", readByReplicas(nil), "--replicas", strconv.Itoa(lifeReplicas), "--registry-image", l.images[0]))
	l.f.refusedEverywhere(t)
	l.f.testJoin(t)
	l.client, err = newClient(filepath.Join(l.f.server.dataDir, "certs", "ca.crt"), l.f.server.listen(registryPort))
	must(t, err)
	t.Cleanup(l.client.CloseIdleConnections)
}

// checkCounts wants that enough happened.
func (l *life) checkCounts(t *testing.T) {
	t.Helper()
	for what, want := range map[string]int{restarts: wantRestarts, upgrades: wantUpgrades, collections: wantSweeps, kills: wantKills, "pushes": 2 * wantSweeps, "blobs freed": wantSweeps} {
		if l.counts[what] < want {
			t.Errorf("%s: %d, want %d", what, l.counts[what], want)
		}
	}
	for name, n := range l.loops.counts() {
		if n < wantPulls {
			t.Errorf("%s pulled %d times, want %d", name, n, wantPulls)
		}
	}
	if len(l.pushed) < wantSweeps || l.counts["commands repeated"] > wantSweeps {
		t.Errorf("%d images were compared, %d commands repeated", len(l.pushed), l.counts["commands repeated"])
	}
}

func (l *life) did(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

func (l *life) failed(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, time.Now().UTC().Format(time.RFC3339Nano)+" "+fmt.Sprintf(format, args...))
}

func (l *life) ended() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// changeTries is how often an operator does a thing that kills keep from ending well.
const changeTries = 4

// change does what an operator does, as often as is wanted, in an order that mixes.
func (l *life) change(t *testing.T) {
	t.Helper()
	steps := []string{}
	for range wantSweeps {
		steps = append(steps, restarts, upgrades, restarts, collections)
	}
	upgraded := 0
	for i, step := range steps {
		do := func() error { return errors.Join(l.deleteOne(), l.collect(i%8 == 7)) }
		switch step {
		case restarts:
			do = l.restart
		case upgrades:
			upgraded++
			do = func() error { return l.upgrade(upgraded % 2) }
		}
		for try := 1; ; try++ {
			begin := time.Now()
			err := do()
			if err == nil {
				break
			}
			// The replica that it waited for may have been killed.
			if try == changeTries || try > 1 && !l.struckDuring(interval{begin, time.Now()}) {
				l.failed("%s: %v", step, err)
				break
			}
			t.Logf("repeated: %v", err)
			l.did("commands repeated")
		}
	}
}

// deleteOne deletes one of the images that were pushed, so that there is something
// to collect.
func (l *life) deleteOne() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for image, p := range l.pushed {
		ref, err := name.ParseReference(image[:strings.LastIndex(image, ":")] + "@" + p.digest)
		if err != nil {
			return err
		}
		delete(l.pushed, image)
		return remote.Delete(ref, remote.WithTransport(l.client), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	}
	return nil
}

// collect sweeps; all: also what just came, so that a push may have to begin anew.
func (l *life) collect(all bool) error {
	args := []string{"registry", "gc", "--untagged"}
	if all {
		args = append(args, "--min-age", "0s")
	}
	return l.during(collections, func() error {
		var got struct{ Blobs, Spared int }
		if err := l.f.server.json(&got, args...); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.counts["blobs freed"] += got.Blobs
		return nil
	})
}
