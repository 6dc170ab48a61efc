//go:build linux

package fleet_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	// lanes are registries side by side: dates of certificates have whole
	// seconds, so that one alone would take an hour and a half.
	lanes         = 11
	goClients     = 4
	wantRenewals  = 1000
	wantRotations = 100
	// shortLife is cut to the second below: seven to eight seconds are left, and a
	// leaf is renewed after two thirds of them and up to 5 %; two seconds are then
	// left for a busy machine.
	shortLife = "8s"
	shortTick = "1s"
	// goPulls and dockerPulls are after how many pulls a client's own password
	// changes.
	goPulls, dockerPulls = 8, 5
	renewalsBound        = 12 * time.Minute
)

// lane is a registry, with an agent of its own on the one host.
type lane struct {
	f      *fleet
	server *server
	domain string
	agent  *process
}

// renewals is what the lanes and their clients did.
type renewals struct {
	lanes []*lane
	host  *host
	stop  chan struct{} // closed to end the clients
	wg    sync.WaitGroup

	mu       sync.Mutex // guards what follows
	counts   tally
	leaves   map[string]bool // serial numbers that clients were shown
	failures []string
}

// TestThousandRenewals renews leaves, rotates CAs and changes users while a
// Docker engine and Go clients pull: nothing may fail.
func TestThousandRenewals(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("renewals: " + why)
	}
	begin := time.Now()
	f := newFleet(t, 1)
	r := &renewals{host: f.hosts[0], stop: make(chan struct{}), counts: tally{}, leaves: map[string]bool{}}
	t.Cleanup(func() { must(t, r.stopLanes()) })
	for i := range lanes {
		r.lanes = append(r.lanes, f.newLane(i))
		must(t, r.lanes[i].startServer())
	}
	for _, l := range r.lanes {
		r.refused(t, l)
		l.join(t, r.host)
		must(t, r.host.login(l.domain, "engine", password))
	}
	r.play(t)
	sum := r.add(t)
	t.Logf("renewals %d, rotations %d, %v, leaves that Go clients were shown %d, failures %d; %v in all",
		sum["leaf"], sum["done"], r.counts, len(r.leaves), len(r.failures), time.Since(begin).Round(time.Second))
	if len(r.failures) > 0 {
		t.Errorf("failures:\n%s", strings.Join(r.failures[:min(20, len(r.failures))], "\n"))
	}
	if sum["leaf"] < wantRenewals || sum["done"] < wantRotations || len(r.leaves) < wantRenewals/4 {
		t.Errorf("too little happened: want %d renewals, %d rotations", wantRenewals, wantRotations)
	}
}

// newLane describes a registry on ports of its own; nothing runs yet.
func (f *fleet) newLane(i int) *lane {
	port := func(first string) string {
		n, _ := strconv.Atoi(first) // a constant
		return strconv.Itoa(n + i)
	}
	label := fmt.Sprintf("server-%d", i)
	p := ports{port(registryPort), port(grpcPort), port(gossipPort), port(httpPort)}
	return &lane{f: f, domain: "registry.test:" + p.registry, server: &server{net: f.net, name: label, dataDir: f.run.path(label), ports: p}}
}

// startServer makes the registry, with short lives and the users that pull.
func (l *lane) startServer() error {
	if _, err := l.server.command("init", "--domain", l.domain, "--leaf-life", shortLife); err != nil {
		return err
	}
	if err := l.server.start("trustcast", nil, "--leaf-life", shortLife, "--tick", shortTick); err != nil {
		return err
	}
	err := l.setPassword("engine", password)
	for i := range goClients {
		err = errors.Join(err, l.setPassword(l.goUser(i), password))
	}
	return err
}

// stopLanes ends all agents and servers at once.
func (r *renewals) stopLanes() error {
	errs := make([]error, len(r.lanes))
	var wg sync.WaitGroup
	for i, l := range r.lanes {
		wg.Go(func() {
			if l.agent != nil {
				errs[i] = l.agent.terminate()
			}
			errs[i] = errors.Join(errs[i], l.server.stop())
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *lane) setPassword(user, password string) error {
	_, err := l.server.commandInput(password+"\n", "user", "add", user, "--password-stdin")
	return err
}

// refused shows that the engine verifies what this registry serves.
func (r *renewals) refused(t *testing.T, l *lane) {
	t.Helper()
	if err := r.host.login(l.domain, "engine", password); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Fatalf("login at %s without the CA: %v, want an x509 error", l.domain, err)
	}
}

// join starts the lane's agent and puts an image into the registry.
func (l *lane) join(t *testing.T, h *host) {
	t.Helper()
	token, err := l.server.command("token", "create", "-q")
	must(t, err)
	port, _ := strconv.Atoi(l.server.ports.gossip) // of newLane
	l.agent, err = l.f.run.start(l.server.name+"-agent", h.agentEnv(), append(h.enter(), l.f.run.path("bin", "trustcast-agent"), "run",
		"--data-dir", h.path("agent-"+l.server.ports.grpc), "--gossip-listen", fmt.Sprintf("%s:%d", h.addr, port),
		"--join", "registry.test:"+l.server.ports.grpc, "--token", strings.TrimSpace(token), "--name", h.name)...)
	must(t, err)
	must(t, l.server.wait(time.Minute, h.name+" is trusted", func(st status) bool { return st.host(h.name).State == "trusted" }))
	img, err := random.Image(layerBytes, imageLayers)
	must(t, err)
	ref, err := name.NewTag(l.image())
	must(t, err)
	client, err := l.client(h, nil)
	must(t, err)
	defer client.CloseIdleConnections()
	must(t, remote.Write(ref, img, remote.WithTransport(client), remote.WithAuth(&authn.Basic{Username: "engine", Password: password})))
}

func (l *lane) image() string { return l.domain + "/app:v1" }

// client trusts what the host has on disk for this registry at this moment.
func (l *lane) client(h *host, seen func(tls.ConnectionState) error) (*http.Transport, error) {
	client, err := newClient(h.path("etc-docker", "certs.d", l.domain, "ca.crt"), l.server.listen(l.server.ports.registry))
	if err == nil {
		client.TLSClientConfig.VerifyConnection = seen
	}
	return client, err
}

// play runs clients until each lane has done its part.
func (r *renewals) play(t *testing.T) {
	r.wg.Go(r.pullWithDocker)
	r.wg.Go(r.changeGuests)
	for i := range goClients {
		r.wg.Go(func() { r.pullWithGo(i) })
	}
	deadline := time.Now().Add(renewalsBound)
	var drivers sync.WaitGroup
	for _, l := range r.lanes {
		drivers.Go(func() {
			if err := l.drive(deadline); err != nil {
				r.fail(l.domain, err)
			}
		})
	}
	drivers.Wait()
	close(r.stop)
	r.wg.Wait()
}

// drive rotates once every ten renewals until the lane has had its part.
func (l *lane) drive(deadline time.Time) error {
	const part, rotations = (wantRenewals + lanes - 1) / lanes, (wantRotations + lanes - 1) / lanes
	for n := range rotations {
		if err := l.awaitLeaves(part*n/rotations, deadline); err != nil {
			return err
		}
		if _, err := l.server.command("ca", "rotate", "--wait"); err != nil {
			return err
		}
	}
	return l.awaitLeaves(part, deadline)
}

// awaitLeaves waits until the log has that many renewals. The log is read, as
// it costs less than a command that asks.
func (l *lane) awaitLeaves(n int, deadline time.Time) error {
	return until(time.Until(deadline), fmt.Sprintf("%d renewals of %s", n, l.domain), func() (bool, string) {
		data, err := os.ReadFile(l.server.log())
		if err != nil {
			return false, err.Error()
		}
		have := strings.Count(string(data), " event=leaf ")
		return have >= n, fmt.Sprintf("%d", have)
	})
}

// add counts the events of all lanes, from their own history.
func (r *renewals) add(t *testing.T) tally {
	t.Helper()
	sum := tally{}
	for _, l := range r.lanes {
		var events []struct{ Event string }
		must(t, l.server.json(&events, "ca", "history"))
		for _, e := range events {
			sum[e.Event]++
		}
	}
	return sum
}
