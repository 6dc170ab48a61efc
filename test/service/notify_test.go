package service

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/server/registry"
)

// manager hears what services tell, like systemd.
type manager struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	noError(t, err)
	t.Cleanup(func() { _ = m.conn.Close() })
	return m
}

// hears waits for a message that begins so.
func (m *manager) hears(want string) string {
	m.t.Helper()
	noError(m.t, m.conn.SetReadDeadline(time.Now().Add(patience)))
	buf, heard := make([]byte, 4096), []string{}
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("never heard %s, but %q", want, heard)
		}
		got := string(buf[:n])
		if strings.HasPrefix(got, want) {
			return got
		}
		heard = append(heard, got)
	}
}

func TestServerTellsSystemd(t *testing.T) {
	m, s := newManager(t), newService(t, true)
	s.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=400000"}
	s.start()
	if got := m.hears("READY=1"); !strings.Contains(got, "\nSTATUS=registry.test:5000, generation 1, rotation idle") {
		t.Errorf("%q", got)
	}
	s.ready() // nobody has to wait after READY
	m.hears("WATCHDOG=1")
	m.hears("WATCHDOG=1")
	noError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	m.hears("STOPPING=1")
	s.end()
}

// TestAgentTellsSystemd: ready without its server, which is what lets a host boot.
func TestAgentTellsSystemd(t *testing.T) {
	m, s := newManager(t), newService(t, false)
	s.start()
	s.ready()
	dir := t.TempDir()
	dirs := []string{"--data-dir", filepath.Join(dir, "agent"), "--docker-certs-dir", filepath.Join(dir, "certs.d")}
	token, err := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast"), "token", "create", "-q", "--data-dir", s.data).Output()
	noError(t, err)
	join := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast-agent"), append([]string{"join", s.addresses["grpc"], "--token", strings.TrimSpace(string(token))}, dirs...)...)
	if out, err := join.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.stop()
	host := &service{t: t, env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=20000000"}}
	t.Cleanup(host.kill)
	host.run(append([]string{filepath.Join(programs, "trustcast-agent"), "run", "--gossip-listen", "off"}, dirs...))
	m.hears("READY=1")
	health := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast-agent"), append([]string{"health"}, dirs...)...)
	if out, err := health.CombinedOutput(); err != nil || string(out) != "[+]agent ok\n[+]files ok\n" {
		t.Errorf("health without the server: %v\n%s", err, out)
	}
	m.hears("WATCHDOG=1")
	noError(t, host.cmd.Process.Signal(syscall.SIGTERM))
	m.hears("STOPPING=1")
	host.end()
}

// hanging is an engine of which a part hangs as soon as it shall.
type hanging struct {
	registry.Fixed
	hangs  atomic.Bool
	asked  chan struct{} // closed when it hangs
	goesOn chan struct{}
}

// Name is what the registry asks for with its lock held.
func (h *hanging) Name() string {
	if h.hangs.CompareAndSwap(true, false) {
		close(h.asked)
		<-h.goesOn
	}
	return h.Fixed.Name()
}

// TestHangingPartIsNoLife: a part that hangs ends the signs of life, while the process and
// its other loops go on; with it mended they come again.
func TestHangingPartIsNoLife(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	_, err := server.Init(t.Context(), server.InitConfig{DataDir: data, Domain: "registry.test"})
	noError(t, err)
	engine := &hanging{asked: make(chan struct{}), goesOn: make(chan struct{})}
	alive := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Config{
			DataDir: data, RegistryListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", GossipListen: "off", HTTPListen: "off", Engine: engine,
			Supervisor: server.Supervisor{Alive: func() {
				select {
				case alive <- struct{}{}:
				default:
				}
			}, Every: 20 * time.Millisecond},
		})
	}()
	defer func() { cancel(); noError(t, <-ended) }()
	sign := func() {
		t.Helper()
		select {
		case <-alive:
		case <-time.After(patience):
			t.Fatal("no sign of life")
		}
	}
	sign()
	sign()
	admin := dialAdmin(t, data)
	if _, err := admin.GetHealth(t.Context(), &pb.GetHealthRequest{Live: true}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	engine.hangs.Store(true)
	<-engine.asked
	for len(alive) > 0 {
		<-alive
	}
	bounded, stop := context.WithTimeout(t.Context(), time.Second) // many times Every
	defer stop()
	if r, err := admin.GetHealth(bounded, &pb.GetHealthRequest{Live: true}); err == nil && r.GetParts()[0].GetProblem() == "" {
		t.Errorf("it says that it lives: %v", r)
	}
	if len(alive) > 0 {
		t.Error("signs of life, although a part hangs")
	}
	close(engine.goesOn)
	sign()
}

func dialAdmin(t *testing.T, data string) pb.AdminServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(data, "state", "admin.sock"))
		}))
	noError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewAdminServiceClient(conn)
}
