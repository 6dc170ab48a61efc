package contract

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"

	"github.com/trustcast/trustcast/server"
)

// serverVariable has this program be a server: it holds a life.
const serverVariable = "TRUSTCAST_TEST_SERVER"

// life is what a server in a process of its own is told.
type life struct {
	DataDir, Listen, Image, Section string
	Replicas                        int
}

// portFile is the descriptor of the registry's port there.
const portFile = 3

// TestServerProcess is that server, in a process that a test can kill.
func TestServerProcess(t *testing.T) {
	said, ok := os.LookupEnv(serverVariable)
	if !ok {
		t.Skip("not a test: other tests start it as a server")
	}
	var l life
	must(t, json.Unmarshal([]byte(said), &l))
	lis, err := listenOn(os.NewFile(portFile, "port"))
	must(t, err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	must(t, server.Run(ctx, server.Config{
		DataDir: l.DataDir, RegistryListen: l.Listen, GRPCListen: "127.0.0.1:0", GossipListen: "off", HTTPListen: "off",
		Listen: func(network, address string) (net.Listener, error) {
			if address == l.Listen {
				return lis, nil
			}
			return net.Listen(network, address)
		},
		Image: l.Image, Replicas: l.Replicas, Registry: server.RegistryParameters{Section: []byte(l.Section)}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "contract",
	}))
}

// startProcess is start with a process of its own; kill is kill -9.
func (s *site) startProcess() (kill func()) {
	s.t.Helper()
	said, err := json.Marshal(life{DataDir: s.cfg.DataDir, Listen: s.cfg.RegistryListen, Image: s.cfg.Image, Section: string(s.cfg.Registry.Section), Replicas: s.cfg.Replicas})
	must(s.t, err)
	port, err := s.port.lis.File()
	must(s.t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerProcess$")
	cmd.Env = append(os.Environ(), serverVariable+"="+string(said))
	cmd.ExtraFiles = []*os.File{port}
	cmd.Stdout, cmd.Stderr = s.logs, s.logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, errors.Join(cmd.Start(), port.Close()))
	var once sync.Once
	s.end = func() {
		once.Do(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // Wait says when it had ended by itself
			if err := cmd.Wait(); err != nil {
				s.t.Errorf("the server's process: %v", err)
			}
		})
	}
	s.client.CloseIdleConnections() // to another life
	s.started()
	return func() {
		once.Do(func() {
			_ = cmd.Process.Kill() // as above
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				s.t.Errorf("the server's process was not killed: %v", err)
			}
		})
	}
}
