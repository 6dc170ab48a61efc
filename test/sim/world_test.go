// Package sim runs the real server and the real agents in simulated time: one
// synctest bubble, gossip and streams in memory, real files in temporary
// directories. S1 to S5 are checked at every transition of the rotation and, by
// a client of each host, every few simulated seconds in between.
package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

const (
	domain   = "registry.test"
	registry = "registry.test:5000"
	rpc      = "10.0.0.1:7443"
	tick     = 10 * time.Second
	gone     = time.Minute
)

// world is a server, its fleet and the network between them.
type world struct {
	t      *testing.T
	dir    string
	net    *network
	gossip *gossip.Network
	cfg    server.Config
	server *process
	token  string
	watch  *process

	mu     sync.Mutex
	hosts  map[string]*host
	phases []string                     // every transition, in order
	last   record                       // at the last transition
	prints map[uint64]certs.Fingerprint // S4: fingerprint of each generation seen on a disk
	gens   map[string]uint64            // S4: newest generation seen on each disk
	steps  chan string                  // phases, for tests that act on them
	pulls  int                          // handshakes that were verified
	// holdAt is the phase in which host-0 loses its link, before anybody is told
	// about it: the rotation stays there.
	holdAt string
	// holdRing is the same for a step of the gossip ring.
	holdRing string
	failed   []string
	warned   []string // the log of the server from warnings on
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

// host is one machine of the fleet.
type host struct {
	name   string
	dir    string
	gossip string // address
	// address is where gossip listens after a move; "": where its name says.
	address string
	// ahead is how far the host's clock is ahead of the others'.
	ahead  time.Duration
	layers agent.Layers
	agent  *process // nil while stopped
	id     string   // once covered
	// up: agent and link; downSince and upSince are of the last changes.
	// Guarded by world.mu.
	up                 bool
	downSince, upSince time.Time
	// drifted: somebody else broke its files.
	drifted bool
}

func (h *host) caFile() string { return filepath.Join(h.dir, "certs.d", registry, "ca.crt") }

// newWorld starts a server; call it inside a bubble.
func newWorld(t *testing.T, dir string, set func(*server.InitConfig, *server.Config)) *world {
	w := &world{
		t: t, dir: dir, net: newNetwork(), gossip: gossip.NewNetwork(1),
		hosts: map[string]*host{}, prints: map[uint64]certs.Fingerprint{}, gens: map[string]uint64{},
		steps: make(chan string, 1000),
	}
	data := filepath.Join(dir, "server")
	init := server.InitConfig{DataDir: data, Domain: registry}
	w.cfg = server.Config{
		DataDir: data, RegistryListen: registry, GRPCListen: rpc, HTTPListen: "off",
		Advertise: rpc, Tick: tick, GoneAfter: gone, Deadline: 2 * time.Minute,
		Engine: idleEngine{}, Listen: w.net.listen, Log: slog.New(&stepHandler{world: w}),
	}
	set(&init, &w.cfg)
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
	w.cfg.GossipTransport = w.gossip.Transport("10.0.0.1:7947")
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
	for _, h := range w.hosts {
		w.stopAgent(h.name)
	}
	w.server.end(w.t)
	w.gossip.Close()
}

// addHost starts an agent that joins.
func (w *world) addHost(name string, layers agent.Layers) {
	h := &host{name: name, dir: filepath.Join(w.dir, name), layers: layers}
	w.mu.Lock()
	w.hosts[name] = h
	w.mu.Unlock()
	w.startAgent(name)
}

func (w *world) startAgent(name string) {
	h := w.host(name)
	w.mu.Lock()
	address := fmt.Sprintf("10.0.%d.%d:7947", 1+len(w.hosts)/200, 1+indexOf(name)%200)
	w.mu.Unlock()
	cfg := agent.Config{
		DataDir: filepath.Join(h.dir, "state"), DockerCertsDir: filepath.Join(h.dir, "certs.d"),
		Server: rpc, Token: w.token, Name: name, Layers: h.layers,
		Dial: w.net.dialFrom(name),
		WatchFile: func(ctx context.Context, _ string, _ func()) error {
			<-ctx.Done()
			return nil
		},
		Log: agentLog(name),
	}
	if h.address != "" {
		address = h.address
	}
	if h.ahead != 0 {
		cfg.Now = func() time.Time { return time.Now().Add(h.ahead) }
	}
	if !h.layers.NoGossip {
		h.gossip = address
		cfg.GossipTransport = w.gossip.Transport(address)
	}
	w.mu.Lock()
	h.up, h.upSince = true, time.Now()
	w.mu.Unlock()
	h.agent = start(func(ctx context.Context) error { return agent.Run(ctx, cfg) })
}

// agentLog discards, unless SIM_LOG is set.
func agentLog(name string) *slog.Logger {
	if os.Getenv("SIM_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("agent", name)
}

// indexOf reads the number at the end of a host's name.
func indexOf(name string) int {
	var n int
	_, _ = fmt.Sscanf(name, "host-%d", &n)
	return n
}

func (w *world) stopAgent(name string) {
	if h := w.host(name); h.agent != nil {
		w.mu.Lock()
		h.up, h.downSince = false, time.Now()
		w.mu.Unlock()
		h.agent.end(w.t)
		h.agent = nil
	}
}

// drifted says that somebody else breaks a host's files.
func (w *world) drifted(name string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[name].drifted = is
}

// cutLink takes a host off the network, or back.
func (w *world) cutLink(name string, down bool) {
	w.mu.Lock()
	h := w.hosts[name]
	if h.up = !down; down {
		h.downSince = time.Now()
	} else {
		h.upSince = time.Now()
	}
	w.mu.Unlock()
	w.net.cut(name, down)
	w.gossip.SetDown(h.gossip, down)
}

func (w *world) host(name string) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hosts[name]
}

func (w *world) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.hosts {
		names = append(names, name)
	}
	return names
}

// admin calls the operator's service.
func (w *world) admin(call func(context.Context, pb.AdminServiceClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	socket := filepath.Join(w.cfg.DataDir, "state", "admin.sock")
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return w.net.dialFrom("operator")(ctx, "unix", socket)
		}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return call(ctx, pb.NewAdminServiceClient(conn))
}

func (w *world) createToken(host string) string {
	var token string
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.CreateToken(ctx, &pb.CreateTokenRequest{Host: host})
		token = r.GetToken()
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) status() *pb.Status {
	var s *pb.Status
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.GetStatus(ctx, &pb.GetStatusRequest{})
		s = r.GetStatus()
		return err
	})
	if err != nil {
		w.t.Fatalf("status: %v", err)
	}
	return s
}

func (w *world) rotate() { w.rotateWithin(0) }

// rotateWithin starts a rotation that waits for gone hosts that long; 0: as
// configured.
func (w *world) rotateWithin(deadline time.Duration) {
	for len(w.steps) > 0 { // of earlier rotations
		<-w.steps
	}
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RotateCA(ctx, &pb.RotateCARequest{Deadline: durationpb.New(deadline)})
		return err
	})
	if err != nil {
		w.t.Fatalf("rotate: %v", err)
	}
}

// skip passes over hosts in the rotation under way.
func (w *world) skip(hosts ...string) {
	err := w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RotateCA(ctx, &pb.RotateCARequest{Skip: hosts})
		return err
	})
	if err != nil {
		w.t.Fatalf("skip: %v", err)
	}
}

// until waits in simulated time for a condition of the status.
func (w *world) until(what string, limit time.Duration, ok func(*pb.Status) bool) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		s := w.status()
		if ok(s) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s\nphase %s generation %d, waiting for %v\nhosts %v", what, limit,
				s.GetRotation().GetPhase(), s.GetGeneration(), s.GetRotation().GetWaitingFor(), s.GetHosts())
		}
		time.Sleep(time.Second)
	}
}

// reach waits for the transition into a phase.
func (w *world) reach(phase string) {
	w.t.Helper()
	limit := time.After(10 * time.Minute)
	for {
		select {
		case p := <-w.steps:
			if p == phase {
				return
			}
		case <-limit:
			w.t.Fatalf("the rotation does not get to %s", phase)
		}
	}
}

// rotateAndHold starts a rotation that stays in a phase until release.
func (w *world) rotateAndHold(phase string) {
	w.t.Helper()
	w.mu.Lock()
	w.holdAt = phase
	w.mu.Unlock()
	w.rotate()
	w.reach(phase)
	w.stays(phase)
}

// stays fails unless the rotation is in a phase, now and a tick later.
func (w *world) stays(phase string) {
	w.t.Helper()
	for range 2 {
		if now := w.status().GetRotation().GetPhase(); now != phase {
			w.t.Fatalf("the rotation is %s and should be held in %s", now, phase)
		}
		time.Sleep(tick)
	}
}

func (w *world) release() { w.cutLink("host-0", false) }

// negativeControl: whoever trusts another CA does not verify what is served, so
// a handshake that is verified proves something.
func (w *world) negativeControl() {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	stranger, err := certs.NewCA(certs.CATemplate{
		Names: []certs.Name{{Host: domain, Port: 5000}}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		w.t.Fatal(err)
	}
	made, err := w.shake("stranger", []*x509.Certificate{stranger.Cert})
	if unknown := new(x509.UnknownAuthorityError); !made || !errors.As(err, unknown) {
		w.t.Fatalf("a stranger's root verifies what is served: made %v, %v", made, err)
	}
}

func idleAt(generation uint64) func(*pb.Status) bool {
	return func(s *pb.Status) bool {
		return s.GetRotation().GetPhase() == "idle" && s.GetGeneration() >= generation
	}
}

// trusted: n hosts have fresh and complete evidence.
func trusted(n int) func(*pb.Status) bool {
	return count(n, func(s *pb.Status, h *pb.Host) bool {
		return h.GetState() == "trusted" && h.GetGeneration() == s.GetGeneration()
	})
}

// has: n hosts are covered and reported the bundle, be it a while ago.
func has(n int) func(*pb.Status) bool {
	return count(n, func(s *pb.Status, h *pb.Host) bool {
		return h.GetCovered() && h.GetGeneration() == s.GetGeneration()
	})
}

func count(n int, ok func(*pb.Status, *pb.Host) bool) func(*pb.Status) bool {
	return func(s *pb.Status) bool {
		found := 0
		for _, h := range s.GetHosts() {
			if ok(s, h) {
				found++
			}
		}
		return found >= n
	}
}

// pull does what an engine does before it pulls: a handshake verified by what
// is in the host's certs.d alone. made is false when there was no server at
// this moment, and nothing was verified.
func (w *world) pull(h *host) (made bool, err error) {
	roots, err := readRoots(h.caFile())
	if err != nil {
		return true, err
	}
	return w.shake("client of "+h.name, roots)
}

// shake verifies what is served with roots.
func (w *world) shake(from string, roots []*x509.Certificate) (made bool, err error) {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := w.net.dialFrom(from)(ctx, "tcp", registry)
	if err != nil {
		return false, nil //nolint:nilerr // that is what made says
	}
	defer func() { _ = conn.Close() }()
	return true, tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: domain}).HandshakeContext(ctx)
}

func readRoots(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return certs.ParsePEM(data)
}

// record is the authority's record as far as the checks need it.
type record struct {
	Value struct {
		Rotation struct {
			Generation uint64
			Phase      string
			Active     uint64
			Other      uint64
			Bundle     []uint64
			Skipped    []string
			Deadline   time.Time
		}
		CAs []struct {
			ID   uint64
			Cert []byte
		}
	}
}

func (w *world) readRecord() (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(w.cfg.DataDir, "state", "records", "authority.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// idleEngine is a registry with nothing in it: these tests are about trust.
type idleEngine struct{}

func (idleEngine) ServeHTTP(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusOK) }
func (idleEngine) Run(ctx context.Context) error                     { <-ctx.Done(); return nil }
