package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// silent is a WatchFile that never says anything.
func silent(ctx context.Context, _ string, _ func()) error {
	<-ctx.Done()
	return nil
}

// TestAliveWhileLoopsTurn: signs of life come while each loop turns, and end when one
// hangs, whichever it is.
func TestAliveWhileLoopsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		a := &agent{log: slog.New(slog.DiscardHandler), all: map[string]*seat{}}
		var loops []*dockerHost
		for range 2 {
			h := newDockerHost(t)
			h.seat = newSeat(h.cfg, 0, func() {}, func() {})
			a.all[h.cfg.DataDir] = h.seat
			loops = append(loops, h)
		}
		resting := false
		loops[1].cfg.Resting = func() {
			if resting {
				<-hang
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		for _, h := range loops {
			go func() { ended <- h.loop(ctx) }()
		}
		signs := func(in time.Duration) (n int) {
			for range in / aliveEvery {
				time.Sleep(aliveEvery) // of the bubble
				synctest.Wait()
				if a.turning(time.Now()) {
					n++
				}
			}
			return n
		}
		if n := signs(10 * time.Minute); n != int(10*time.Minute/aliveEvery) {
			t.Errorf("%d signs of life in 10 minutes", n)
		}
		resting = true
		if n := signs(10 * time.Minute); n == 0 || n > int((hungAfter+restEvery)/aliveEvery) {
			t.Errorf("%d signs of life in the 10 minutes in which a loop hangs", n)
		}
		resting = false
		close(hang)
		if n := signs(10 * time.Minute); n < int(9*time.Minute/aliveEvery) {
			t.Errorf("%d signs of life in the 10 minutes after", n)
		}
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
		if n := signs(10 * time.Minute); n != int(10*time.Minute/aliveEvery) {
			t.Errorf("%d signs of life in 10 minutes without a loop, such as while a membership is tried again", n)
		}
	})
}

// TestAliveEvery: a supervisor that waits for a short time only is told as often.
func TestAliveEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alive atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Config{
				DataDir: filepath.Join(t.TempDir(), "agent"), WatchFile: silent, AwaitJoin: true, GossipListen: off,
				DockerCertsDir: t.TempDir(), Alive: func() { alive.Add(1) }, AliveEvery: time.Second,
			})
		}()
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		if n := alive.Load(); n < 50 {
			t.Errorf("%d signs of life in a minute", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAwaitJoin: without a registry, an agent that shall wait is ready and alive, finds
// what is joined also when nobody tells it, and needs no sign that it is asked for.
func TestAwaitJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // Run's goroutine calls, this one reads
		alive, ready := 0, 0
		var last time.Time
		cfg := Config{
			DataDir: filepath.Join(t.TempDir(), "agent"), WatchFile: silent, AwaitJoin: true, GossipListen: off,
			DockerCertsDir: t.TempDir(), Ready: func() { ready++ },
			Alive: func() {
				mu.Lock()
				defer mu.Unlock()
				if gap := time.Since(last); alive > 0 && gap > 10*time.Second {
					t.Errorf("no sign of life for %v", gap)
				}
				alive, last = alive+1, time.Now()
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, cfg) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		if ready != 1 || alive < 360 {
			t.Errorf("ready %d times, alive %d times in an hour", ready, alive)
		}
		mu.Unlock()
		if err := Run(t.Context(), cfg); !errors.Is(err, ErrRunning) {
			t.Errorf("a second agent on one data directory: %v", err)
		}
		if err := os.WriteFile(filepath.Join(cfg.DataDir, identityFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		select {
		case err := <-ended: // it is the only one, and damaged
			if err == nil {
				t.Error("no error")
			}
		default:
			t.Error("what was joined was not found")
		}
		cancel()
	})
}

// TestAgentsWithoutRegistry: without one, and nobody to wait for, an agent says how to
// join.
func TestAgentsWithoutRegistry(t *testing.T) {
	cfg := Config{DataDir: filepath.Join(t.TempDir(), "agent"), WatchFile: silent, Ready: func() { t.Error("ready") }}
	if err := Run(t.Context(), cfg); err == nil || err.Error() != cfg.notJoined().Error() {
		t.Errorf("%v, want %v", err, cfg.notJoined())
	}
}

// TestPortsOfGossip: each further membership has a port of its own.
func TestPortsOfGossip(t *testing.T) {
	for _, c := range []struct{ listen, second, third string }{
		{":7947", ":7948", ":7949"},
		{"10.0.0.1:7948", "10.0.0.1:7949", "10.0.0.1:7950"},
		{"[::1]:7", "[::1]:8", "[::1]:9"},
		{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"},
		{off, off, off},
		{"nonsense", "nonsense", "nonsense"},
	} {
		var got []string
		for n := range 3 {
			got = append(got, Config{GossipListen: c.listen}.gossipFor(n).GossipListen)
		}
		if !slices.Equal(got, []string{c.listen, c.second, c.third}) {
			t.Errorf("%s: %q", c.listen, got)
		}
	}
}

// TestSeatsStayInside: a server's address names one directory in registries and nothing
// else.
func TestSeatsStayInside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(`{"format":1,"server":"a:1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{
		"a:1": dir, "A:1": dir, "b:7443": filepath.Join(dir, registriesDir, "b:7443"), "[::1]:7443": filepath.Join(dir, registriesDir, "[::1]:7443"),
		"../x:1": "", "/etc:1": "", "a/../../b:1": "", "b": "", "": "",
	} {
		cfg, err := Config{DataDir: dir, Server: server, Token: "tc1"}.joining()
		if (err == nil) != (want != "" || server == "") {
			t.Errorf("%q: %v", server, err)
		}
		if err == nil && want != "" && cfg.DataDir != want {
			t.Errorf("%q: %s, want %s", server, cfg.DataDir, want)
		}
		if host, _, bad := net.SplitHostPort(server); err == nil && want != "" && (bad != nil || host == "") {
			t.Errorf("%q was taken", server)
		}
	}
}

// joined writes what a join at a server that nobody runs would have.
func joined(t *testing.T, dir, domain, server string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca := fuzzCA(t, domain)
	err = s.write(identityFile, enrolment{
		Format: stateFormat, FleetID: "fleet of " + domain, HostID: "host", Name: "web-1", Domain: domain, Server: server,
		Cert: ca, Key: der, Received: time.Now(), ControlCAs: [][]byte{ca}, Gossip: ring{Keys: [][]byte{make([]byte, 32)}},
	})
	if err == nil {
		err = s.write(trustedFile, trusted{Format: stateFormat, Revision: 1, Generation: 1, Roots: [][]byte{ca}, Names: []string{domain}, Tick: time.Minute})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestNothingRunsOn: what is left, and what an agent did before it ended, has no
// goroutine any more.
func TestNothingRunsOn(t *testing.T) {
	before := goleak.IgnoreCurrent()
	cfg := Config{DataDir: filepath.Join(t.TempDir(), "agent"), DockerCertsDir: filepath.Join(t.TempDir(), "certs.d"), GossipListen: "127.0.0.1:0"}
	for i, dir := range []string{cfg.DataDir, filepath.Join(cfg.DataDir, registriesDir, "b:1"), filepath.Join(cfg.DataDir, registriesDir, "c:1")} {
		joined(t, dir, []string{"a.test:5000", "b.test:5000", "c.test:5000"}[i], "127.0.0.1:1")
	}
	ready := make(chan struct{})
	cfg.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	<-ready
	for domain, there := range map[string]bool{"a.test:5000": true, "b.test:5000": true, "c.test:5000": true, "d.test:5000": false} {
		if _, err := os.Stat(filepath.Join(cfg.DockerCertsDir, domain, "ca.crt")); (err == nil) != there {
			t.Errorf("%s: %v", domain, err)
		}
	}
	if _, err := Leave(t.Context(), cfg, "b.test:5000"); err != nil {
		t.Error(err)
	}
	if all, err := ReadAll(cfg); err != nil || len(all) != 2 || !all[0].Running || !all[1].Running {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := LeaveAll(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil { // nothing is left to do
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}

// TestSeatThatIsGone: a membership that was left before it was served is no failure, but
// a join that was not through is one.
func TestSeatThatIsGone(t *testing.T) {
	for pending, failed := range map[bool]bool{false: false, true: true} {
		cfg := Config{DataDir: t.TempDir(), DockerCertsDir: t.TempDir(), GossipListen: off}.withDefaults()
		if pending {
			if err := os.WriteFile(filepath.Join(cfg.DataDir, pendingFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := newSeat(cfg, 0, func() {}, func() {}).keep(t.Context()); (err != nil) != failed {
			t.Errorf("a join was begun: %v; %v", pending, err)
		}
	}
}
