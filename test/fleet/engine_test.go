//go:build linux

package fleet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

const (
	engineReplicas = 2
	// holdLimit is how long the edge has a request wait for an endpoint.
	holdLimit = 30 * time.Second
	// engineBack is far above what an engine takes to start, and the server to see it
	// and to replace its replicas: 5 s between two looks, a second for each replica.
	engineBack = time.Minute
)

// outage is a registry whose engine is killed while clients ask.
type outage struct {
	*fleet
	engine *host
	asks   *asks
	image  string
}

// TestEngineKilled kills the engine that the registry's replicas run on with -9, and
// starts it again, while clients ask through the edge and a real engine pulls. Each
// request is answered, held, or refused with 503 and when to try again; afterwards the
// registry is whole, and nobody did anything for that.
func TestEngineKilled(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("killed engine: " + why)
	}
	t.Parallel()
	begin := time.Now()
	o := &outage{fleet: newFleet(t, 1), image: images.Registry(t)}
	o.engine = o.serverEngine(t, o.image)
	o.begin(t)
	o.refusedEverywhere(t)
	o.testJoin(t)
	o.asks = newAsks(t, filepath.Join(o.server.dataDir, "certs", "ca.crt"), o.server.listen(registryPort))
	o.scenario(t, "its containers go on until it is back", o.testReplicasEndWithTheReturn)
	o.scenario(t, "its containers die with it", o.testReplicasDie)
	o.scenario(t, "its containers outlive it", o.testReplicasLive)
	o.scenario(t, "reads need neither", o.testReadsNeedNobody)
	t.Logf("killed engine: %v; %v; %v in all", o.asks, &o.sum, time.Since(begin).Round(time.Second))
}

// serverEngine is a Docker engine on the server's machine that has the image. It ends
// after the server, with all its containers.
func (f *fleet) serverEngine(t *testing.T, image string) *host {
	t.Helper()
	h := &host{net: f.net, name: "server", addr: f.run.addr(serverAddr), dir: f.run.path("engine")}
	for _, dir := range []string{h.certsDir(), h.path("client")} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, os.WriteFile(h.path("hosts"), []byte("127.0.0.1 localhost\n"), 0o644))
	must(t, h.startEngine())
	t.Cleanup(func() {
		must(t, f.server.stop()) // its replicas need the engine to stop
		if ids, err := h.docker("ps", "--all", "--quiet"); err == nil && strings.TrimSpace(ids) != "" {
			_, err = h.docker(append([]string{"rm", "--force"}, strings.Fields(ids)...)...)
			must(t, err)
		}
		must(t, h.stopEngine())
	})
	images.Load(t, h.socket(), image)
	return h
}

// dockerHost is the environment that leads to a host's engine.
func (h *host) dockerHost() []string { return []string{"DOCKER_HOST=" + h.socket()} }

// begin makes the registry on the engine and starts it.
func (o *outage) begin(t *testing.T) {
	t.Helper()
	argv := []string{o.run.path("bin", "trustcast"), "init", "--domain", domain, "--user", user, "--password-stdin", "--engine", "docker", "--volume", "data", "--data-dir", o.server.dataDir}
	_, err := o.run.output(t.Context(), o.engine.dockerHost(), password+"\n", argv...)
	must(t, err)
	o.startServer(t, readByReplicas(o.engine.dockerHost()))
}

// killEngine is kill -9. Its containerd dies with it, its containers do not.
func (o *outage) killEngine(t *testing.T) {
	t.Helper()
	o.engine.engine.kill()
	o.engine.engine = nil
	// Where nobody reaps the dead containerd, the next dockerd takes it for alive.
	must(t, os.RemoveAll(o.engine.path("exec", "containerd", "containerd.pid")))
}

// startServer starts it on the engine, with a registry that is whole.
func (o *outage) startServer(t *testing.T, env []string) {
	t.Helper()
	must(t, o.server.start("trustcast", env, "--replicas", strconv.Itoa(engineReplicas), "--registry-image", o.image))
	must(t, until(engineBack, "the registry is whole", o.whole))
}

// killUnderLoad kills the engine while requests and pulls go on. It returns what the
// server says from then on, the replicas of before, and the pulls.
func (o *outage) killUnderLoad(t *testing.T) (said *spoken, before []string, loops *pulls) {
	t.Helper()
	said, before = o.listen(t), o.replicas(t)
	loops = startPulls(appImage, o.hosts)
	t.Cleanup(loops.halt)
	o.asks.start(t)
	loops.waitMore(t, 1)
	o.killEngine(t)
	said.wait(t, "the Docker engine is gone", 1)
	return said, before, loops
}

// testReplicasEndWithTheReturn: containers do not need their engine, but one without
// live-restore ends what it finds when it starts.
func (o *outage) testReplicasEndWithTheReturn(t *testing.T) {
	said, before, pulls := o.killUnderLoad(t)
	o.asks.waitServed(t, 10)
	pulls.waitMore(t, 2)
	must(t, o.engine.startEngine())
	said.wait(t, "the Docker engine is back", 1)
	said.wait(t, "a replica has ended by itself", engineReplicas)
	must(t, until(engineBack, "the registry is whole", o.whole))
	o.asks.waitServed(t, 10)
	pulls.waitMore(t, 2)
	o.asks.end(t, 0)
	pulls.end(t, &o.sum)
	for _, id := range o.replicas(t) {
		if slices.Contains(before, id) {
			t.Errorf("the replica %s is from before the engine ended its container", id)
		}
	}
}

// testReplicasDie: nobody is left to answer, for longer than requests are held.
func (o *outage) testReplicasDie(t *testing.T) {
	said := o.listen(t)
	pids := o.replicaPIDs(t)
	o.asks.start(t)
	o.asks.waitServed(t, 10)
	o.killEngine(t)
	for _, pid := range pids {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	said.wait(t, "an endpoint of the registry fails", engineReplicas)
	o.asks.waitRefused(t, 1)
	o.statusNames(t, "start the engine")
	pulled, begin := make(chan error, 1), time.Now()
	var held time.Duration
	go func() {
		err := o.hosts[0].pull(appImage)
		held = time.Since(begin)
		pulled <- err
	}()
	must(t, until(holdLimit, "requests wait", func() (bool, string) {
		st, err := o.registry()
		return st.Held > askers, fmt.Sprint(st, err) // more than the askers': the pull's
	}))
	must(t, o.engine.startEngine())
	must(t, until(engineBack, "the registry is whole", o.whole))
	o.sum.pulls++
	err := <-pulled
	if err != nil && strings.Contains(err.Error(), "503 Service Unavailable") && held >= holdLimit {
		t.Logf("refused after %v, as it should be, and repeated: %v", held.Round(time.Second), err)
		err = o.hosts[0].pull(appImage)
	}
	if err != nil {
		o.sum.failed++
		t.Errorf("the pull that was held: %v", err)
	}
	o.asks.waitServed(t, 10)
	o.asks.end(t, 1)
	for _, words := range []string{"the Docker engine is gone", "the Docker engine is back"} {
		said.wait(t, words, 1)
	}
	said.wait(t, "a replica has ended by itself", engineReplicas)
	o.pull(t, o.hosts[0])
}

// testReplicasLive: an engine with live-restore takes its containers up again, and so
// does the server, which need not do anything.
func (o *outage) testReplicasLive(t *testing.T) {
	must(t, o.server.stop())
	must(t, o.engine.stopEngine())
	must(t, os.WriteFile(o.engine.path("etc-docker", "daemon.json"), []byte(`{"live-restore": true}`), 0o600))
	must(t, o.engine.startEngine())
	o.startServer(t, readByReplicas(o.engine.dockerHost()))
	o.waitTrusted(t, time.Minute)

	said, before, pulls := o.killUnderLoad(t)
	pulls.waitMore(t, 2)
	must(t, o.engine.startEngine())
	said.wait(t, "the Docker engine is back", 1)
	must(t, until(engineBack, "the registry is whole", o.whole))
	pulls.waitMore(t, 2)
	o.asks.end(t, 0)
	pulls.end(t, &o.sum)
	if after := o.replicas(t); !slices.Equal(before, after) {
		t.Errorf("the replicas are %v, before they were %v", after, before)
	}
	if n := said.count("a replica has ended by itself"); n > 0 {
		t.Errorf("%d replicas ended by themselves", n)
	}
}

// testReadsNeedNobody: by default manifests and blobs come from the files, and pulls go
// on without an engine and without a replica.
func (o *outage) testReadsNeedNobody(t *testing.T) {
	must(t, o.server.stop())
	o.startServer(t, o.engine.dockerHost())
	o.waitTrusted(t, time.Minute)
	said := o.listen(t)
	pids := o.replicaPIDs(t)
	o.killEngine(t)
	for _, pid := range pids {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	said.wait(t, "an endpoint of the registry fails", engineReplicas)
	before, err := o.server.directly()
	must(t, err)
	o.pull(t, o.hosts[0])
	after, err := o.server.directly()
	must(t, err)
	if after == before {
		t.Error("the pull read nothing from the files")
	}
	must(t, o.engine.startEngine())
	must(t, until(engineBack, "the registry is whole", o.whole))
}

// registryStatus is the part of `trustcast registry status -o json` that is looked at.
type registryStatus struct {
	Problem  string
	Held     int
	Replicas []struct{ ID, State, Problem string }
}

func (o *outage) registry() (registryStatus, error) {
	var st registryStatus
	out, err := o.server.command("registry", "status", "-o", "json")
	if e := json.Unmarshal([]byte(out), &st); e != nil {
		return st, fmt.Errorf("%w: %w", e, err)
	}
	return st, nil // the command's own error says that the state is bad
}

func (o *outage) whole() (bool, string) {
	st, err := o.registry()
	well := len(st.Replicas) == engineReplicas && st.Problem == ""
	for _, r := range st.Replicas {
		well = well && r.Problem == ""
	}
	return err == nil && well, fmt.Sprint(st, err)
}

// statusNames wants the operator to be told what to do.
func (o *outage) statusNames(t *testing.T, next string) {
	t.Helper()
	must(t, until(engineBack, "the status says "+next, func() (bool, string) {
		st, err := o.registry()
		return strings.Contains(st.Problem, next), fmt.Sprint(st, err)
	}))
}

// replicas are their IDs.
func (o *outage) replicas(t *testing.T) (ids []string) {
	t.Helper()
	st, err := o.registry()
	must(t, err)
	for _, r := range st.Replicas {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// replicaPIDs are the processes of the replicas.
func (o *outage) replicaPIDs(t *testing.T) (pids []int) {
	t.Helper()
	out, err := o.engine.docker("ps", "--quiet")
	must(t, err)
	out, err = o.engine.docker(append([]string{"inspect", "--format", "{{.State.Pid}}"}, strings.Fields(out)...)...)
	must(t, err)
	for pid := range strings.FieldsSeq(out) {
		n, err := strconv.Atoi(pid)
		must(t, err)
		pids = append(pids, n)
	}
	if len(pids) != engineReplicas {
		t.Fatalf("the engine runs %v, want %d replicas", pids, engineReplicas)
	}
	return pids
}

// spoken is what the server's log says from a moment on.
type spoken struct {
	log  string
	from int64
}

func (o *outage) listen(t *testing.T) *spoken {
	t.Helper()
	info, err := os.Stat(o.server.log())
	must(t, err)
	return &spoken{o.server.log(), info.Size()}
}

func (s *spoken) count(words string) int {
	said, err := os.ReadFile(s.log)
	if err != nil || int64(len(said)) < s.from {
		return 0
	}
	return strings.Count(string(said[s.from:]), words)
}

func (s *spoken) wait(t *testing.T, words string, times int) {
	t.Helper()
	must(t, until(engineBack, "the server's log says "+words, func() (bool, string) {
		n := s.count(words)
		return n >= times, fmt.Sprintf("%d times, want %d", n, times)
	}))
}
