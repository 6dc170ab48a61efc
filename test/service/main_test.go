package service

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// patience bounds each wait; a healthy run needs a fraction of a second of it.
const patience = 60 * time.Second

// answerLimit bounds one request; a restart under held sockets fits into it many times.
const answerLimit = 15 * time.Second

// programs is the directory of the built programs.
var programs string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "trustcast-service-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	programs = dir
	return m.Run()
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// service is a server that is started again and again on the same data and ports.
type service struct {
	t    *testing.T
	data string
	// addresses by the names of sockets; held are those that outlive the server, nil
	// for none.
	addresses map[string]string
	held      []*os.File
	env       []string

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended, with bad
	bad   error
	log   lockedBuffer
}

// lockedBuffer is what a process writes while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var socketNames = []string{"registry", "grpc", "http"}

// services counts those of this process, for their addresses.
var services atomic.Int64

// newService makes a registry with the user ci. With hold its sockets are opened here.
func newService(t *testing.T, hold bool) *service {
	t.Helper()
	s := &service{t: t, data: filepath.Join(t.TempDir(), "d"), addresses: map[string]string{}}
	// An address of its own: between two lives of the server nobody else takes its ports.
	address := fmt.Sprintf("127.%d.%d.1:0", 16+os.Getpid()%200, services.Add(1))
	for _, socket := range socketNames {
		lis, err := net.Listen("tcp", address)
		noError(t, err)
		s.addresses[socket] = lis.Addr().String()
		if hold {
			file, err := lis.(*net.TCPListener).File()
			noError(t, err)
			s.held = append(s.held, file)
			t.Cleanup(func() { _ = file.Close() })
		}
		defer func() { noError(t, lis.Close()) }() // with all drawn, no two are the same
	}
	init := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast"), "init", "--data-dir", s.data, "--domain", "registry.test", "--user", "ci", "--password-stdin")
	init.Stdin = strings.NewReader("secret secret\n")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(s.kill)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.log.String())
		}
	})
	return s
}

func (s *service) serverArgs() []string {
	return []string{"server", "--data-dir", s.data, "--gossip-listen", "off", "--listen", s.addresses["registry"], "--grpc-listen", s.addresses["grpc"], "--http-listen", s.addresses["http"]}
}

// start runs the server, with the sockets if they are held, as systemd passes them.
func (s *service) start() {
	s.t.Helper()
	s.run(append([]string{filepath.Join(programs, "trustcast")}, s.serverArgs()...))
}

func (s *service) run(args []string) {
	s.t.Helper()
	env := append(os.Environ(), s.env...)
	if len(s.held) > 0 { // LISTEN_PID is the server's own, which only it can know
		args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, args...)
		env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(s.held)), "LISTEN_FDNAMES="+strings.Join(socketNames, ":"))
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env, s.cmd.ExtraFiles = env, s.held
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	noError(s.t, s.cmd.Start())
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		s.bad = cmd.Wait()
		close(ended)
	}()
}

// goesOn fails the test at once when the process has ended by itself.
func (s *service) goesOn() {
	s.t.Helper()
	select {
	case <-s.ended:
		s.t.Fatalf("the process has ended: %v", s.bad)
	default:
	}
}

// end waits for the end of a process that was told to.
func (s *service) end() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("it has not ended within %v", patience) // kill comes after the test
	}
	s.cmd = nil
	if s.bad != nil {
		s.t.Fatalf("the process ended badly: %v", s.bad)
	}
}

// stop is what a service manager does, and waits for the end.
func (s *service) stop() {
	s.t.Helper()
	noError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	s.end()
}

func (s *service) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.ended
		s.cmd = nil
	}
}

// ready waits until /readyz says so.
func (s *service) ready() {
	s.t.Helper()
	client := &http.Client{Timeout: answerLimit}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s.goesOn()
		resp, err := client.Get("http://" + s.addresses["http"] + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not ready: %v, %v", resp, err)
		}
	}
}

// transport trusts the registry's CA alone. Each request has a connection of its own, as
// Docker's classic pull has, so that none is tried again by itself.
func (s *service) transport() *http.Transport {
	s.t.Helper()
	pem, err := os.ReadFile(filepath.Join(s.data, "certs", "ca.crt"))
	noError(s.t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		s.t.Fatal("no CA")
	}
	return &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "registry.test"}}
}

// push makes an image, and returns the paths that a pull of it asks for.
func (s *service) push() []string {
	s.t.Helper()
	image, err := random.Image(100_000, 2)
	noError(s.t, err)
	ref, err := name.ParseReference(s.addresses["registry"] + "/app:v1")
	noError(s.t, err)
	noError(s.t, remote.Write(ref, image, remote.WithTransport(s.transport()), remote.WithAuth(&authn.Basic{Username: "ci", Password: "secret secret"})))
	manifest, err := image.Manifest()
	noError(s.t, err)
	paths := []string{"/v2/", "/v2/app/manifests/v1", "/v2/app/blobs/" + manifest.Config.Digest.String()}
	for _, layer := range manifest.Layers {
		paths = append(paths, "/v2/app/blobs/"+layer.Digest.String())
	}
	return paths
}
