// Package sim runs the real server and the real agents in simulated time: one
// synctest bubble, gossip and streams in memory, real files in temporary
// directories. S1 to S5 are checked at every transition of the rotation and, by
// a client of each host, every few simulated seconds in between.
package sim

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
	"github.com/trustcast/trustcast/server"
	engines "github.com/trustcast/trustcast/server/registry"
)

const (
	domain   = "registry.test"
	registry = "registry.test:5000"
	rpc      = "10.0.0.1:7443"
	member   = "10.0.0.1:7947"
	// tick and gone are those of short plays.
	tick = 10 * time.Second
	gone = time.Minute
)

// seedFlag is the same each time unless somebody looks for more, so that a run that
// fails is about what was changed.
var seedFlag = flag.Uint64("seed", 1, "simulate with this seed; 0: another one each time, which a failure prints")

// seed draws one, or takes the one to repeat.
func seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return uint64(rand.Uint32()) + 1
}

// pace is how fast a world goes. Zero lives, gossip and keepalive are the
// program's defaults.
type pace struct {
	tick, gone, deadline time.Duration
	caLife, identityLife time.Duration
	gossip, keepalive    time.Duration
	// poll is how often a wait looks at the status, look how often the disks
	// are checked between transitions.
	poll, look time.Duration
	// set changes the configuration of the server; nil: as it is.
	set func(*server.InitConfig, *server.Config)
}

// quick is for plays of minutes.
func quick() pace {
	return pace{tick: tick, gone: gone, deadline: 2 * time.Minute, poll: time.Second, look: 3 * time.Second}
}

// world is a server, its fleet and the network between them.
type world struct {
	t      *testing.T
	pace   pace
	dir    string
	net    *network
	gossip *gossip.Network
	cfg    server.Config
	server *process
	token  string
	watch  *process
	twins  []*process // clones

	mu     sync.Mutex
	hosts  map[string]*host
	phases []string                     // every transition, in order
	last   record                       // at the last transition
	prints map[uint64]certs.Fingerprint // S4: fingerprint of each generation seen on a disk
	gens   map[string]uint64            // S4: newest generation seen on each disk
	steps  chan string                  // phases, for tests that act on them
	// rotations and switches that happened; shakes are handshakes that were
	// verified, pulls the hosts that they stand for.
	rotations, switches, shakes, pulls int
	// excused counts what was not verified and need not, by reason.
	excused map[string]int
	// switchers and retirers are the hosts checked at switches and retires.
	switchers, retirers int
	// servedBefore is the record before the active CA changed, at servedUntil.
	servedBefore record
	servedUntil  time.Time
	// holdAt is the phase in which host-0 loses its link, before anybody is told
	// about it: the rotation stays there.
	holdAt string
	// holdRing is the same for a step of the gossip ring.
	holdRing string
	failed   []string
	warned   []string // the log of the server from warnings on
	// closed: the server was restored and serves nobody yet; opened is when that
	// ended last.
	closed bool
	opened time.Time
	// uncovered are the IDs of hosts that the record says are not covered any
	// more, before their own records do.
	uncovered []string
	// started is when the server was started last.
	started time.Time
}

// process is a running Run.
type process struct {
	stop context.CancelFunc
	done chan error
}

func start(run func(ctx context.Context) error) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{stop: cancel, done: make(chan error, 1)}
	go func() { p.done <- run(ctx) }()
	return p
}

func (p *process) end(t *testing.T) {
	t.Helper()
	p.stop()
	if err := <-p.done; err != nil {
		t.Errorf("ended with: %v", err)
	}
}

// simulate runs a test in a bubble, with the promises checked throughout.
func simulate(t *testing.T, hosts int, layers agent.Layers, play func(w *world)) {
	t.Helper()
	simulateAt(t, quick(), 1, hosts, layers, play)
}

// simulateWith is simulate with another configuration of the server.
func simulateWith(t *testing.T, set func(*server.InitConfig, *server.Config), hosts int, layers agent.Layers, play func(w *world)) {
	t.Helper()
	p := quick()
	p.set = set
	simulateAt(t, p, 1, hosts, layers, play)
}

// simulateAt is simulate at a pace, with a seed for the network.
func simulateAt(t *testing.T, p pace, seed uint64, hosts int, layers agent.Layers, play func(w *world)) {
	t.Helper()
	dir := scratch(t)
	if raced {
		// With more than one processor the race detector crashes over the
		// timers of a bubble (golang/go#78156).
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	// Hundreds of agents in one process: memory is cheaper than collecting it.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, p, seed)
		defer w.verdict()
		defer w.close()
		for i := range hosts {
			w.addHost(fmt.Sprintf("host-%d", i), layers)
		}
		w.until("the fleet joins", 30*p.tick, has(hosts))
		w.negativeControl()
		w.checkPulls("before the play")
		play(w)
		w.checkPulls("after the play")
	})
}

// scratch is a directory in memory if there is one: nothing is killed in a
// simulation, so that what a disk costs buys nothing.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "trustcast-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newWorld starts a server; call it inside a bubble.
func newWorld(t *testing.T, dir string, p pace, seed uint64) *world {
	w := &world{
		t: t, pace: p, dir: dir, net: newNetwork(), gossip: gossip.NewNetwork(seed),
		hosts: map[string]*host{}, prints: map[uint64]certs.Fingerprint{}, gens: map[string]uint64{},
		excused: map[string]int{},
		steps:   make(chan string, 1000),
	}
	data := filepath.Join(dir, "server")
	init := server.InitConfig{DataDir: data, Domain: registry, CALife: p.caLife}
	w.cfg = server.Config{
		DataDir: data, RegistryListen: registry, GRPCListen: rpc, HTTPListen: "off",
		Advertise: rpc, Tick: p.tick, GoneAfter: p.gone, Deadline: p.deadline,
		CALife: p.caLife, IdentityLife: p.identityLife, GossipEvery: p.gossip, Keepalive: p.keepalive,
		Engine: engines.Fixed{}, Listen: w.net.listen, Log: slog.New(&stepHandler{world: w}),
	}
	if p.set != nil {
		p.set(&init, &w.cfg)
	}
	if _, err := server.Init(t.Context(), init); err != nil {
		t.Fatal(err)
	}
	w.startServer()
	w.token = w.createToken("")
	w.last, _ = w.readRecord()
	w.watch = start(func(ctx context.Context) error { w.watchDisks(ctx); return nil })
	return w
}

func (w *world) startServer() {
	w.cfg.GossipTransport = w.gossip.Transport(member)
	cfg := w.cfg
	w.mu.Lock()
	w.started = time.Now()
	w.mu.Unlock()
	w.server = start(func(ctx context.Context) error { return server.Run(ctx, cfg) })
	synctest.Wait()
}

func (w *world) restartServer() {
	w.server.end(w.t)
	w.startServer()
}

// close ends everything; the bubble's end checks that nothing is left.
func (w *world) close() {
	w.watch.end(w.t)
	for _, twin := range w.twins {
		twin.end(w.t)
	}
	for _, h := range w.hosts {
		w.leaveAgent(h.name)
	}
	for _, h := range w.hosts {
		h.awaitEnd(w.t)
	}
	w.server.end(w.t)
	w.gossip.Close()
}
