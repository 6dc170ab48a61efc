package security

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/server/registry"
)

const (
	// serverMember is the server's address in simulated gossip.
	serverMember = "10.0.0.1:7947"

	tick = time.Second
	// patience is the limit of every wait for a condition; conditions that
	// hold come within a second.
	patience = 20 * time.Second
	look     = 10 * time.Millisecond
)

// world is a real server and the wire to it.
type world struct {
	t    *testing.T
	dir  string
	wire *wire
	cfg  server.Config
	init server.InitResult
	log  *journal
	// gossip is set in simulated time only; then every agent is a member.
	gossip  *gossip.Network
	members int
}

// start runs a server until the test ends. set may change its configuration.
func start(t *testing.T, set ...func(*server.InitConfig, *server.Config)) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "tc") // short: a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, wire: newWire(false), log: &journal{}}
	w.run(set...)
	return w
}

// simulate plays in simulated time with gossip and streams in memory.
func simulate(t *testing.T, play func(w *world), set ...func(*server.InitConfig, *server.Config)) {
	t.Helper()
	dir := t.TempDir()
	// With more than one processor the race detector crashes over the timers
	// of a bubble (golang/go#78156). Such tests are not parallel.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: dir, wire: newWire(true), log: &journal{}, gossip: gossip.NewNetwork(1)}
		t.Cleanup(w.gossip.Close)
		w.run(set...)
		play(w)
	})
}

// run makes a registry and serves it.
func (w *world) run(set ...func(*server.InitConfig, *server.Config)) {
	w.t.Helper()
	init := server.InitConfig{DataDir: filepath.Join(w.dir, "server"), Domain: registryName}
	w.cfg = server.Config{
		DataDir: init.DataDir, RegistryListen: registryName, GRPCListen: serverAddress,
		GossipListen: "off", HTTPListen: "off", Advertise: serverAddress, Tick: tick,
		Engine: registry.Fixed{}, Listen: w.wire.listen, Log: w.log.logger("server"),
	}
	if w.gossip != nil {
		w.cfg.GossipListen, w.cfg.GossipTransport = "", w.gossip.Transport(serverMember)
		w.cfg.Advertise = serverMember // members join its host; a name would be looked up
	}
	for _, f := range set {
		f(&init, &w.cfg)
	}
	var err error
	if w.init, err = server.Init(w.t.Context(), init); err != nil {
		w.t.Fatal(err)
	}
	w.background(func(ctx context.Context) error { return server.Run(ctx, w.cfg) })
	until(w.t, "the server answers", func() bool {
		return w.admin(func(ctx context.Context, c pb.AdminServiceClient) error {
			_, err := c.GetStatus(ctx, &pb.GetStatusRequest{})
			return err
		}) == nil
	})
}

// background runs something until the test ends, or stop is called.
func (w *world) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("ended with: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(look) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// admin calls the operator's service over the socket.
func (w *world) admin(call func(context.Context, pb.AdminServiceClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return w.wire.dialer("operator")(ctx, "unix", w.socket())
		}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return call(ctx, pb.NewAdminServiceClient(conn))
}

func (w *world) socket() string { return filepath.Join(w.cfg.DataDir, "state", "admin.sock") }

// must is admin for calls that cannot fail.
func (w *world) must(call func(context.Context, pb.AdminServiceClient) error) {
	w.t.Helper()
	if err := w.admin(call); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) status() (s *pb.Status) {
	w.t.Helper()
	w.must(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.GetStatus(ctx, &pb.GetStatusRequest{})
		s = r.GetStatus()
		return err
	})
	return s
}

// host returns what the server knows of a host; nil: nothing.
func (w *world) host(name string) *pb.Host {
	for _, h := range w.status().GetHosts() {
		if h.GetName() == name {
			return h
		}
	}
	return nil
}

func (w *world) token(req *pb.CreateTokenRequest) (token string) {
	w.t.Helper()
	w.must(func(ctx context.Context, c pb.AdminServiceClient) error {
		r, err := c.CreateToken(ctx, req)
		token = r.GetToken()
		return err
	})
	return token
}

func (w *world) rotate(deadline time.Duration) {
	w.t.Helper()
	w.must(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RotateCA(ctx, &pb.RotateCARequest{Deadline: durationpb.New(deadline)})
		return err
	})
}

func (w *world) remove(host string) {
	w.t.Helper()
	w.must(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RemoveHost(ctx, &pb.RemoveHostRequest{Host: host})
		return err
	})
}

// machine is a Docker host with a real agent.
type machine struct {
	w      *world
	cfg    agent.Config
	member string // its address in simulated gossip
	stop   func()
}

// machine sets one up; nothing runs yet.
func (w *world) machine(name string) *machine {
	dir := filepath.Join(w.dir, name)
	m := &machine{w: w, cfg: agent.Config{
		DataDir: filepath.Join(dir, "state"), DockerCertsDir: filepath.Join(dir, "certs.d"),
		Server: serverAddress, Name: name, GossipListen: "off",
		Dial: w.wire.dialer(name), Log: w.log.logger(name),
	}}
	if w.gossip != nil {
		w.members++
		m.member = fmt.Sprintf("10.0.1.%d:7947", w.members)
		m.cfg.GossipListen, m.cfg.GossipTransport = "", w.gossip.Transport(m.member)
		m.cfg.WatchFile = func(ctx context.Context, _ string, _ func()) error { // the real one does not know simulated time
			<-ctx.Done()
			return nil
		}
	}
	return m
}

// join starts an agent that joins and waits until the server trusts it.
func (w *world) join(name string, set ...func(*agent.Config)) *machine {
	w.t.Helper()
	m := w.machine(name)
	for _, f := range set {
		f(&m.cfg)
	}
	m.cfg.Token = w.token(&pb.CreateTokenRequest{})
	m.start()
	until(w.t, name+" is trusted", func() bool { return w.host(name).GetCovered() })
	return m
}

func (m *machine) start() {
	cfg := m.cfg
	m.stop = m.w.background(func(ctx context.Context) error { return agent.Run(ctx, cfg) })
}

// identity is what a thief of this machine has.
func (m *machine) identity() pair {
	m.w.t.Helper()
	var kept struct{ Cert, Key []byte }
	data, err := os.ReadFile(filepath.Join(m.cfg.DataDir, "identity.json"))
	if err != nil {
		m.w.t.Fatal(err)
	}
	if err := json.Unmarshal(data, &kept); err != nil {
		m.w.t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(kept.Key)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return pair{cert: parse(m.w.t, kept.Cert), key: key.(*ecdsa.PrivateKey)}
}

func (m *machine) status() agent.Status {
	m.w.t.Helper()
	s, err := agent.ReadStatus(m.cfg)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return s
}

// trust is what this machine trusts, byte for byte: every file that its engine
// reads, and the bundle accepted last.
func (m *machine) trust() map[string]string {
	m.w.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(m.cfg.DockerCertsDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		m.w.t.Fatal(err)
	}
	return files
}

// journal is a log at its chattiest, kept for searching.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", who)
}
