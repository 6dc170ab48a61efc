//go:build linux

package fleet_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// askers is how many ask at the same time.
const askers = 3

// asks are clients that ask the registry for the same two documents again and again,
// whose content they know, and see what each answer is. A right one, or 503 with when
// to try again: nothing else is good.
type asks struct {
	client *http.Transport
	paths  [2]string // of a manifest and of its configuration
	digest [2]string

	stop chan struct{}
	wg   sync.WaitGroup

	mu              sync.Mutex // guards what follows
	served, refused int
	before          int           // of refused, when they started
	longest         time.Duration // that a request took which was served
	soonest         time.Duration // that one took which was refused; zero: none was
	wrong           []string
}

// newAsks asks for what is in the image of the fleet.
func newAsks(t *testing.T, ca, address string) *asks {
	t.Helper()
	a := &asks{}
	var err error
	a.client, err = newClient(ca, address)
	must(t, err)
	t.Cleanup(a.client.CloseIdleConnections)
	a.paths[0] = "/v2/fleet/app/manifests/v1"
	resp, body, err := a.get(t.Context(), a.paths[0])
	must(t, err)
	a.digest[0] = resp.Header.Get("Docker-Content-Digest")
	var m v1.Manifest
	must(t, json.Unmarshal(body, &m))
	a.digest[1] = m.Config.Digest.String()
	a.paths[1] = "/v2/fleet/app/blobs/" + a.digest[1]
	return a
}

func (a *asks) get(ctx context.Context, path string) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*holdLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+domain+path, nil)
	if err != nil {
		return nil, nil, err
	}
	req.SetBasicAuth(user, password)
	req.Header.Set("Accept", string(types.DockerManifestSchema2))
	resp, err := a.client.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// start lets them ask until end, or the end of the test.
func (a *asks) start(t *testing.T) {
	_, a.before = a.counts()
	a.stop = make(chan struct{})
	stop := a.stop
	for i := range askers {
		a.wg.Go(func() { a.loop(stop, i) })
	}
	t.Cleanup(a.halt)
}

func (a *asks) halt() {
	if a.stop != nil {
		close(a.stop)
		a.stop = nil
	}
	a.wg.Wait()
}

func (a *asks) loop(stop <-chan struct{}, n int) {
	for ; ; n++ {
		select {
		case <-stop:
			return
		default:
			a.ask(n % len(a.paths))
		}
	}
}

func (a *asks) ask(n int) {
	begin := time.Now()
	resp, body, err := a.get(context.Background(), a.paths[n])
	took := time.Since(begin)
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := sha256.Sum256(body)
	switch {
	case err != nil:
		a.wrong = append(a.wrong, fmt.Sprintf("%s after %v: %v", a.paths[n], took, err))
	case resp.StatusCode == http.StatusOK && "sha256:"+hex.EncodeToString(sum[:]) == a.digest[n]:
		a.served++
		a.longest = max(a.longest, took)
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "" && strings.Contains(string(body), "nothing answers for the registry"):
		a.refused++
		if a.soonest == 0 || took < a.soonest {
			a.soonest = took
		}
	default:
		a.wrong = append(a.wrong, fmt.Sprintf("%s after %v: %s %v %s", a.paths[n], took, resp.Status, resp.Header, body))
	}
}

func (a *asks) counts() (served, refused int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.served, a.refused
}

// waitServed waits until so many more were served. Those that were asked before may be
// among them.
func (a *asks) waitServed(t *testing.T, more int) {
	t.Helper()
	before, _ := a.counts()
	must(t, until(time.Minute, fmt.Sprintf("%d more answers", more), func() (bool, string) {
		now, refused := a.counts()
		return now >= before+more, fmt.Sprintf("%d, and %d refused", now-before, refused)
	}))
}

func (a *asks) waitRefused(t *testing.T, more int) {
	t.Helper()
	_, before := a.counts()
	must(t, until(2*holdLimit, fmt.Sprintf("%d more refusals", more), func() (bool, string) {
		served, now := a.counts()
		return now >= before+more, fmt.Sprintf("%d, and %d served", now-before, served)
	}))
}

// end stops them. Nothing may have been wrong; refused: that many were at least, after
// they had been held, and 0: none was.
func (a *asks) end(t *testing.T, refused int) {
	t.Helper()
	a.halt()
	a.mu.Lock()
	defer a.mu.Unlock()
	t.Logf("requests served %d, the slowest after %v; refused with 503 %d, the first after %v; wrong %d",
		a.served, a.longest.Round(time.Millisecond), a.refused, a.soonest.Round(time.Millisecond), len(a.wrong))
	if len(a.wrong) > 0 {
		t.Errorf("wrong answers:\n%s", strings.Join(a.wrong, "\n"))
	}
	if n := a.refused - a.before; n < refused || refused == 0 && n > 0 {
		t.Errorf("%d requests were refused, want %d", n, refused)
	}
	if a.soonest != 0 && a.soonest < holdLimit {
		t.Errorf("a request was refused after %v, want it held for %v", a.soonest, holdLimit)
	}
}

// String is the figures of all.
func (a *asks) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("requests served %d, refused with 503 %d, the slowest served after %v, wrong %d", a.served, a.refused, a.longest.Round(time.Millisecond), len(a.wrong))
}
