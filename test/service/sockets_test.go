package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/test/images"
)

const (
	pullers  = 4
	restarts = 5
)

// pulls is a load that goes on while the server is started again.
type pulls struct {
	s             *service
	done, refused atomic.Int64
	mu            sync.Mutex
	failed        []error // that were not refused
}

// pull gets everything once.
func pull(ctx context.Context, client *http.Client, address string, paths []string) error {
	for _, path := range paths {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
		if err != nil {
			return err
		}
		req.SetBasicAuth("ci", "secret secret")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s, %w", path, resp.Status, errors.Join(err))
		}
	}
	return nil
}

// load pulls until stop is called, which waits for the last ones.
func (s *service) load(paths []string) (p *pulls, stop func()) {
	p = &pulls{s: s}
	var pulling sync.WaitGroup
	over := make(chan struct{})
	for range pullers {
		client := &http.Client{Transport: s.transport(), Timeout: answerLimit}
		pulling.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				switch err := pull(s.t.Context(), client, s.addresses["registry"], paths); {
				case err == nil:
					p.done.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED):
					p.refused.Add(1)
				default:
					p.mu.Lock()
					p.failed = append(p.failed, err)
					p.mu.Unlock()
				}
			}
		})
	}
	return p, sync.OnceFunc(func() { close(over); pulling.Wait() })
}

// more waits until n further pulls went well.
func (p *pulls) more(t *testing.T, n int64) {
	t.Helper()
	want := p.done.Load() + n
	for deadline := time.Now().Add(patience); p.done.Load() < want; time.Sleep(5 * time.Millisecond) {
		p.s.goesOn()
		if time.Now().After(deadline) {
			t.Fatalf("%d pulls, want %d; refused %d, failed %v", p.done.Load(), want, p.refused.Load(), p.failed)
		}
	}
}

// TestRestartRefusesNoConnection: with sockets that the service manager holds, pulls wait
// while no server runs. The control is a server that opens its ports itself.
func TestRestartRefusesNoConnection(t *testing.T) {
	for _, held := range []bool{true, false} {
		t.Run(fmt.Sprintf("held=%v", held), func(t *testing.T) {
			s := newService(t, held)
			s.start()
			s.ready()
			p, stop := s.load(s.push())
			defer stop()
			for range restarts {
				p.more(t, 2*pullers)
				s.stop()
				if !held { // whoever comes now is refused
					for deadline := time.Now().Add(patience); p.refused.Load() == 0 && time.Now().Before(deadline); {
						time.Sleep(time.Millisecond)
					}
				}
				s.start()
				s.ready()
			}
			p.more(t, 2*pullers)
			stop()
			t.Logf("sockets held: %v: %d restarts, %d pulls, %d refused, %d failed otherwise", held, restarts, p.done.Load(), p.refused.Load(), len(p.failed))
			if held && (p.refused.Load() > 0 || len(p.failed) > 0) {
				t.Errorf("%d pulls were refused, and others failed: %v", p.refused.Load(), p.failed)
			}
			if !held && p.refused.Load() == 0 {
				t.Error("no pull was refused without the sockets: the test cannot fail")
			}
		})
	}
}

// TestPassedSocketCounts: whoever gave another address hears of it.
func TestPassedSocketCounts(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:1", ""} { // the second is the control: what the socket has
		s := newService(t, true)
		args := s.serverArgs()
		if listen != "" {
			args = append(args, "--listen", listen)
		}
		s.run(append([]string{filepath.Join(programs, "trustcast")}, args...))
		s.ready()
		if warned := strings.Contains(s.log.String(), "--listen does not count"); warned != (listen != "") {
			t.Errorf("given %q: warned is %v", listen, warned)
		}
		asked := func(verb ...string) string {
			out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast"), append(verb, "--data-dir", s.data)...).CombinedOutput()
			noError(t, err)
			return string(out)
		}
		if out := asked("config", "show"); !regexp.MustCompile(`(?m)^listen +` + regexp.QuoteMeta(s.addresses["registry"]) + ` +systemd$`).MatchString(out) {
			t.Errorf("config show has another address:\n%s", out)
		}
		if out := asked("doctor"); !strings.Contains(out, "hosts pull from registry.test:5000") || strings.Count(out, "\nstate\n") != 1 {
			t.Errorf("doctor says nothing of the port, or one heading twice:\n%s", out)
		}
		s.stop()
	}
}

// TestSystemdSocketActivate: the first connection to systemd's own tool starts the server,
// which answers it.
func TestSystemdSocketActivate(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		images.Skip(t, "needs systemd-socket-activate (Debian's systemd)")
	}
	s := newService(t, false)
	args := []string{tool, "--fdname=" + strings.Join(socketNames, ":")}
	for _, socket := range socketNames {
		args = append(args, "--listen="+s.addresses[socket])
	}
	s.run(append(append(args, filepath.Join(programs, "trustcast")), s.serverArgs()...))
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s.goesOn()
		conn, err := net.Dial("tcp", s.addresses["registry"]) // starts it
		if err == nil {
			noError(t, conn.Close())
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	s.ready()
	client := &http.Client{Transport: s.transport(), Timeout: answerLimit}
	noError(t, pull(t.Context(), client, s.addresses["registry"], s.push()))
	if got := strings.Count(s.log.String(), "opened_by=systemd"); got != len(socketNames) {
		t.Errorf("%d of %d sockets were taken", got, len(socketNames))
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast"), "doctor", "--data-dir", s.data).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "systemd holds the sockets") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	s.stop()
}
