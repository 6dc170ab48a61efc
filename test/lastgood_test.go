package test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/test/ports"
)

// running is a Run that a test ends.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func begin(t *testing.T, run func(context.Context) error) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- run(ctx) }()
	t.Cleanup(func() { r.end(t) })
	return r
}

func (r *running) end(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.done; err != nil {
		t.Errorf("ended with: %v", err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// freeAddress is one that a restarted server can have again.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := ports.Free("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// TestLastGood: with the server away, a host keeps its bundle in place: files
// that are changed, deleted or found missing at a start are mended. When the
// server is back, the host takes part again by itself.
func TestLastGood(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "server")
	if _, err := server.Init(t.Context(), server.InitConfig{DataDir: data, Domain: "registry.test"}); err != nil {
		t.Fatal(err)
	}
	scfg := server.Config{
		DataDir: data, RegistryListen: "127.0.0.1:0", GRPCListen: freeAddress(t), GossipListen: "off", HTTPListen: "off",
		Advertise: "127.0.0.1", Tick: 500 * time.Millisecond, Engine: registry.Fixed{},
	}
	serve := func(ctx context.Context) error { return server.Run(ctx, scfg) }
	srv := begin(t, serve)
	admin := adminClient(t, data)
	var token string
	eventually(t, "the server is up", func() bool {
		resp, err := admin.CreateToken(t.Context(), &pb.CreateTokenRequest{})
		token = resp.GetToken()
		return err == nil
	})
	acfg := agent.Config{
		DataDir: filepath.Join(dir, "agent"), DockerCertsDir: filepath.Join(dir, "certs.d"), Server: scfg.GRPCListen,
		Token: token, Name: "web-1", GossipListen: "off",
	}
	live := func(ctx context.Context) error { return agent.Run(ctx, acfg) }
	host := begin(t, live)
	file := filepath.Join(acfg.DockerCertsDir, "registry.test:5000", "ca.crt")
	var good []byte
	eventually(t, "the CA is installed", func() bool {
		var err error
		good, err = os.ReadFile(file)
		return err == nil
	})
	mended := func() bool {
		have, err := os.ReadFile(file)
		return err == nil && bytes.Equal(have, good)
	}

	srv.end(t)
	for what, harm := range map[string]func() error{
		"deleted":        func() error { return os.Remove(file) },
		"truncated":      func() error { return os.Truncate(file, 5) },
		"overwritten":    func() error { return os.WriteFile(file, []byte("something else"), 0o644) },
		"directory gone": func() error { return os.RemoveAll(filepath.Dir(file)) },
		"all gone":       func() error { return os.RemoveAll(acfg.DockerCertsDir) },
	} {
		// The agent may mend what is being removed: then once more.
		eventually(t, what, func() bool { return harm() == nil })
		eventually(t, what+" and mended without the server", mended)
	}
	host.end(t)
	if err := os.RemoveAll(acfg.DockerCertsDir); err != nil {
		t.Fatal(err)
	}
	begin(t, live)
	eventually(t, "mended at a start without the server", mended)

	begin(t, serve)
	eventually(t, "the host is back", func() bool {
		resp, err := admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		hosts := resp.GetStatus().GetHosts()
		return err == nil && len(hosts) == 1 && hosts[0].GetState() == "trusted"
	})
}

func adminClient(t *testing.T, dataDir string) pb.AdminServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+filepath.Join(dataDir, "state", "admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewAdminServiceClient(conn)
}
