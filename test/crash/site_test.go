package crash

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// agents is how many hosts a fleet has: two can differ.
const agents = 2

// Ticks: the usual one is short, so that evidence is asked for often, and long
// enough that two busy cores do not let it go stale. With the slow one, nobody
// says anything by the clock while a test looks.
const (
	usualTick = "500ms"
	slowTick  = "30s"
	// heldTick is for hosts that are stopped: what they have said must not go
	// stale before a loaded machine has come to the next step (two ticks).
	heldTick = "5s"
)

// site is one registry with its hosts on this machine: directories, addresses,
// processes. It shares nothing with other sites but the programs.
type site struct {
	t        *testing.T
	programs string
	dir      string
	// host is a loopback address of the site's own, so that no other process
	// takes a port while the server is down.
	host                   string
	registry, grpc, gossip string
	token, tick            string
	// tracer is put in front of a program's command line, by the program's name.
	tracer func(name string) []string

	first  beginning
	server *process
	agents [agents]*process
	admin  pb.AdminServiceClient
	close  []func()

	mu sync.Mutex
	// epoch is odd while a server is known to listen; guarded by mu.
	epoch int64
	// gone is the last server that ended; guarded by mu.
	gone *process
}

// up: the server has said that it serves.
func (s *site) up(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone != p {
		s.epoch++
	}
}

// down: the server has ended.
func (s *site) down(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = p
	s.epoch += s.epoch % 2
}

func (s *site) listening() (epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// sites counts the sites of this process, for their addresses.
var sites atomic.Int64

// newSite makes an empty site; what it starts and writes is gone at the end of
// the test.
func newSite(t *testing.T, build func() (string, error)) *site {
	t.Helper()
	programs, err := build()
	must(t, err)
	dir := scratch(t) // t.TempDir is too long for the admin socket
	s := &site{t: t, programs: programs, dir: dir, tick: usualTick, tracer: func(string) []string { return nil }}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			s.explain()
		}
		must(t, os.RemoveAll(dir))
	})
	n := sites.Add(1)
	s.host = fmt.Sprintf("127.%d.%d.%d", 16+os.Getpid()%200, n/250, n%250+1)
	for _, port := range []*string{&s.registry, &s.grpc, &s.gossip} {
		lis, err := net.Listen("tcp", s.host+":0")
		must(t, err)
		*port = lis.Addr().String()
		defer func() { must(t, lis.Close()) }()
	}
	return s
}

func (s *site) serverDir() string { return filepath.Join(s.dir, "server") }

func (s *site) record(name string) string {
	return filepath.Join(s.serverDir(), "state", "records", filepath.FromSlash(name)+".json")
}

func hostName(i int) string { return fmt.Sprintf("web-%d", i+1) }

func (s *site) agentDir(i int) string { return filepath.Join(s.dir, hostName(i)) }

func (s *site) certsDir(i int) string { return filepath.Join(s.dir, hostName(i)+"-certs.d") }

// installed is the file that a host's container engine reads.
func (s *site) installed(i int) string {
	return filepath.Join(s.certsDir(i), s.registry, "ca.crt")
}

// env is the whole environment of a program of the site.
func (s *site) env(more ...string) []string {
	return append([]string{"HOME=" + s.dir, "PATH=/usr/bin:/bin"}, more...)
}

// trustcast runs the operator's command.
func (s *site) trustcast(args ...string) (string, error) {
	return run(s.env(), append([]string{filepath.Join(s.programs, "trustcast")}, append(args, "--data-dir", s.serverDir())...))
}

func (s *site) initArgs() []string { return []string{"init", "--domain", s.registry} }

// serverArgs is the command line of the server, the same at each start.
func (s *site) serverArgs() []string {
	return []string{filepath.Join(s.programs, "trustcast"), "server", "--data-dir", s.serverDir(),
		"--listen", s.registry, "--grpc-listen", s.grpc, "--gossip-listen", s.gossip, "--http-listen", "off",
		"--tick", s.tick, "--deadline", "1m"}
}

// agentArgs is the command line of an agent: verb is run or join.
func (s *site) agentArgs(i int, verb string) []string {
	return []string{filepath.Join(s.programs, "trustcast-agent"), verb, "--join", s.grpc, "--token", s.token,
		"--name", hostName(i), "--data-dir", s.agentDir(i), "--docker-certs-dir", s.certsDir(i), "--gossip-listen", s.host + ":0"}
}

// startServer starts it and waits until it serves, or has crashed (ok false).
func (s *site) startServer(crash crash) (ok bool) {
	s.t.Helper()
	p, err := start("server", s.env(crash.env()...), append(s.tracer("server"), s.serverArgs()...), s.down)
	must(s.t, err)
	s.server = p
	s.close = append(s.close, p.kill)
	_, ok, err = p.awaitLog(`msg=serving`)
	must(s.t, err)
	if !ok {
		return false
	}
	s.up(p)
	s.connect()
	return true
}

// connect opens a connection to the admin socket; an old one would wait before
// it tries again.
func (s *site) connect() {
	socket := filepath.Join(s.serverDir(), "state", "admin.sock")
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}))
	must(s.t, err)
	s.close = append(s.close, func() { _ = conn.Close() })
	s.admin = pb.NewAdminServiceClient(conn)
}

// startAgent runs an agent in the background.
func (s *site) startAgent(i int, crash crash) {
	s.t.Helper()
	p, err := start(hostName(i), s.env(crash.env()...), append(s.tracer(hostName(i)), s.agentArgs(i, "run")...), func(*process) {})
	must(s.t, err)
	s.agents[i] = p
	s.close = append(s.close, p.kill)
}

// status asks the server.
func (s *site) status() (*pb.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := s.admin.GetStatus(ctx, &pb.GetStatusRequest{})
	return r.GetStatus(), err
}

// await polls the status until cond holds.
func (s *site) await(what string, cond func(*pb.Status) bool) (*pb.Status, error) {
	var st *pb.Status
	err := until(what, func() (bool, string) {
		var err error
		if st, err = s.status(); err != nil {
			return false, err.Error()
		}
		return cond(st), st.String()
	})
	return st, err
}

// settled: no rotation runs, and each host is trusted with the generation.
func settled(generation uint64) func(*pb.Status) bool {
	return func(st *pb.Status) bool {
		good := st.GetRotation().GetPhase() == "idle" && st.GetGeneration() == generation && len(st.GetHosts()) == agents
		for _, h := range st.GetHosts() {
			good = good && h.GetState() == "trusted" && h.GetGeneration() == generation
		}
		return good
	}
}

// newToken makes the join token of the site.
func (s *site) newToken(args ...string) {
	s.t.Helper()
	token, err := s.trustcast(append([]string{"token", "create", "-q"}, args...)...)
	must(s.t, err)
	s.token = token
}

// stop ends everything; stopping twice does no harm.
func (s *site) stop() {
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
	s.close = nil
}

// explain shows what the programs said.
func (s *site) explain() {
	for _, p := range append([]*process{s.server}, s.agents[:]...) {
		if p != nil {
			s.t.Logf("--- %s\n%s", strings.Join(p.cmd.Args, " "), p.out)
		}
	}
}
