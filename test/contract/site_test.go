// Package contract is what clients and operators may expect of a registry, checked
// against a real server with each engine.
//
// The embedded engine runs everywhere; the docker engine needs a Docker engine and
// root, and is skipped elsewhere with the reason.
package contract

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

const (
	user     = "ann"
	password = "correct horse battery staple"
	// patience is far above what anything here takes.
	patience = 60 * time.Second
)

// engines are those that a contract holds for.
var engines = []string{"embedded", "docker"}

// site is a server with its registry, as clients and operators meet it.
type site struct {
	t      *testing.T
	engine string
	cfg    server.Config
	port   *heldPort
	domain string // HOST:PORT
	roots  *x509.CertPool
	admin  pb.AdminServiceClient
	client *http.Client

	end  func() // ends the server and waits
	logs *lines
}

// each runs a contract against a server of each engine. Replicas in containers answer
// reads, the embedded one leaves them to the server as by default.
func each(t *testing.T, contract func(t *testing.T, s *site), set ...func(*server.InitConfig, *server.Config)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) { contract(t, open(t, engine, set...)) })
	}
}

// open makes a registry and starts its server; all of it is gone after the test.
func open(t *testing.T, engine string, set ...func(*server.InitConfig, *server.Config)) *site {
	t.Helper()
	s := &site{t: t, engine: engine, logs: &lines{}}
	dir, err := os.MkdirTemp("", "tcc") // short: a socket's path has 107 bytes at most
	must(t, err)
	t.Cleanup(func() { removed(t, dir) })
	s.port = holdPort(t)
	s.domain = "localhost:" + s.port.number()
	initial := server.InitConfig{DataDir: filepath.Join(dir, "data"), Domain: s.domain, User: user, Password: password, EngineName: engine}
	s.cfg = server.Config{
		DataDir: initial.DataDir, RegistryListen: s.port.address(), GRPCListen: "127.0.0.1:0", GossipListen: "off", HTTPListen: "off",
		Listen: s.port.listen, Log: slog.New(slog.NewTextHandler(s.logs, nil)), Version: "contract",
	}
	if engine == "docker" {
		s.runInContainers()
		initial.Volume = "tcc-" + strings.ToLower(rand.Text()[:10])
		t.Cleanup(func() { s.removeVolume(initial.Volume) })
	}
	for _, change := range set {
		change(&initial, &s.cfg)
	}
	_, err = server.Init(t.Context(), initial)
	must(t, err)
	s.start()
	s.meet()
	return s
}

// removed removes a directory, which nothing of an ended server makes again.
func removed(t *testing.T, dir string) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	var running strings.Builder
	for limit := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it was told to end, and may not have come to it
		running.Reset()
		must(t, pprof.Lookup("goroutine").WriteTo(&running, 1))
		if !strings.Contains(running.String(), "TTLExpirationScheduler") || time.Now().After(limit) {
			break
		}
	}
	if strings.Contains(running.String(), "TTLExpirationScheduler") { // a mirror's, which writes every five seconds
		t.Errorf("%s may come again: what writes there has not ended\n%s", dir, &running)
	}
}

// start runs the server until stop, or the end of the test.
func (s *site) start() {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, s.cfg) }()
	var once sync.Once
	s.end = func() {
		once.Do(func() {
			stop()
			if err := <-done; err != nil {
				s.t.Errorf("the server: %v", err)
			}
		})
	}
	s.started()
}

// started waits until the server serves, and has it end with the test.
func (s *site) started() {
	s.t.Helper()
	end := s.end // of this life
	s.t.Cleanup(func() {
		end()
		if s.t.Failed() {
			s.t.Logf("the server's log:\n%s", s.logs)
		}
	})
	s.connect()
	s.until("the registry serves", s.ping)
}

func (s *site) connect() {
	conn, err := grpc.NewClient("unix:"+filepath.Join(s.cfg.DataDir, "state", "admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	s.admin = pb.NewAdminServiceClient(conn)
}

// meet makes a client that trusts the registry's CA and nothing else.
func (s *site) meet() {
	ca, err := os.ReadFile(filepath.Join(s.cfg.DataDir, "certs", "ca.crt"))
	must(s.t, err)
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}}
	s.t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport, Timeout: patience}
}

// ping says whether the server answers operators.
func (s *site) ping() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	r, err := s.admin.GetRegistry(ctx, &pb.GetRegistryRequest{})
	if err != nil {
		return err
	}
	if r.GetState() == "running" && len(r.GetReplicas()) < int(r.GetWanted()) {
		return errors.New("replicas are missing: " + r.GetProblem())
	}
	return nil
}

// until waits for a condition.
func (s *site) until(what string, is func() error) {
	s.t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("never: %s: %v", what, err)
		}
	}
}

// change has the operator change the registry, and returns the steps.
func (s *site) change(verb, image string) (steps []string, err error) {
	stream, err := s.admin.ChangeRegistry(s.t.Context(), &pb.ChangeRegistryRequest{Verb: verb, Image: image})
	if err != nil {
		return nil, err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return steps, nil
		}
		if err != nil {
			return steps, err
		}
		steps = append(steps, r.GetStep())
	}
}

// replaced waits until the registry is whole without those replicas.
func (s *site) replaced(gone []*pb.Replica) {
	s.t.Helper()
	s.until("all replicas are others", func() error {
		for _, replica := range s.registry().GetReplicas() {
			for _, old := range gone {
				if replica.GetId() == old.GetId() {
					return errors.New(old.GetId() + " is still there")
				}
			}
		}
		return s.ping()
	})
}

func (s *site) must(verb, image string) {
	s.t.Helper()
	if steps, err := s.change(verb, image); err != nil {
		s.t.Fatalf("%s %s: %v after %q", verb, image, err, steps)
	}
}

func (s *site) registry() *pb.GetRegistryResponse {
	s.t.Helper()
	r, err := s.admin.GetRegistry(s.t.Context(), &pb.GetRegistryRequest{})
	must(s.t, err)
	return r
}

// do makes one request, signed in. The body is read.
func (s *site) do(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	s.t.Helper()
	resp, text, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, text
}

func (s *site) try(method, path string, body io.Reader, header ...string) (*http.Response, string, error) {
	if !strings.HasPrefix(path, "https://") {
		path = "https://" + s.domain + path
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, path, body)
	if err != nil {
		return nil, "", err
	}
	req.SetBasicAuth(user, password)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), errors.Join(err, resp.Body.Close())
}

// want makes a request that must be answered with this status.
func (s *site) want(status int, method, path string, body io.Reader, header ...string) *http.Response {
	s.t.Helper()
	resp, text := s.do(method, path, body, header...)
	if resp.StatusCode != status {
		s.t.Fatalf("%s %s: %s, want %d: %.300s", method, path, resp.Status, status, text)
	}
	return resp
}

func (s *site) options() []remote.Option {
	return []remote.Option{
		remote.WithTransport(s.client.Transport), remote.WithContext(s.t.Context()),
		remote.WithAuth(&authn.Basic{Username: user, Password: password}),
		// What fails once has failed: retries would hide it.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	}
}

func (s *site) ref(what string) name.Reference {
	s.t.Helper()
	ref, err := name.ParseReference(s.domain + "/" + what)
	must(s.t, err)
	return ref
}

// removeVolume removes what a test made in Docker.
func (s *site) removeVolume(volume string) {
	s.t.Helper()
	left, err := exec.Command("docker", "ps", "--all", "--quiet", "--filter", "volume="+volume).Output()
	must(s.t, err)
	for _, id := range strings.Fields(string(left)) {
		if out, err := exec.Command("docker", "rm", "--force", id).CombinedOutput(); err != nil {
			s.t.Errorf("%v: %s", err, out)
		}
	}
	if out, err := exec.Command("docker", "volume", "rm", volume).CombinedOutput(); err != nil {
		s.t.Errorf("%v: %s", err, out)
	}
}

// lines is a log that is shown when a test fails.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
