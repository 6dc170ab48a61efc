package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestOneAgentOfTwoServers: an agent serves two registries through rotations of both,
// a second one is joined while it runs, and what ails one server does not touch the other.
func TestOneAgentOfTwoServers(t *testing.T) {
	a, b := newRealm(t, "a.test:5000"), newRealm(t, "b.test:5000")
	m := newMachine(t)
	m.join(a)
	m.start()
	a.trusted()
	if !m.pulls(a) || m.pulls(b) {
		t.Fatal("a host of one registry must pull from that, and from no other")
	}
	m.join(b)
	b.trusted()
	if !m.pulls(a) || !m.pulls(b) {
		t.Fatal("a host of both registries must pull from both")
	}
	again, err := agent.Join(t.Context(), m.joining(b))
	if err != nil || !again.Already || !again.Running || again.Domain != b.domain {
		t.Errorf("joined again: %+v, %v", again, err)
	}
	if hosts := b.status().GetHosts(); len(hosts) != 1 {
		t.Errorf("joining again made %d hosts", len(hosts))
	}
	a.rotate()
	b.rotate()
	b.run.end(t) // away
	a.rotate()
	if !m.pulls(a) {
		t.Error("a rotation of one server while the other is away has broken its registry")
	}
	eventually(t, "the status tells them apart", func() bool { return m.of(a).Connected && !m.of(b).Connected && m.of(b).Running })
	m.run.end(t)
	m.start() // a start without it, too
	a.trusted()
	b.open()
	b.trusted()
	b.rotate()
	if all := m.status(); len(all) != 2 || all[0].Domain != a.domain {
		t.Errorf("status: %+v", all)
	}
	for _, r := range []*realm{a, b} {
		if s := m.of(r); !s.Connected || s.Problem != "" || s.Generation != r.status().GetGeneration() || !m.pulls(r) {
			t.Errorf("%s: %+v", r.domain, s)
		}
	}
}

// TestLeaveOneOfTwo: one registry is left while the agent runs, the other goes on, and
// what was there before is there again when the last is left.
func TestLeaveOneOfTwo(t *testing.T) {
	a, b := newRealm(t, "a.test:5000"), newRealm(t, "b.test:5000")
	m := newMachine(t)
	m.cfg.AwaitJoin = true
	m.start()
	m.join(a, b)
	a.trusted()
	b.trusted()
	if _, err := agent.Leave(t.Context(), m.cfg, ""); !errors.Is(err, agent.ErrWhich) || !strings.Contains(err.Error(), "a.test:5000, b.test:5000") {
		t.Fatalf("which one? %v", err)
	}
	if _, err := agent.Leave(t.Context(), m.cfg, "c.test:5000"); !errors.Is(err, agent.ErrNotJoined) {
		t.Fatalf("one that was not joined: %v", err)
	}
	boot := func(dir string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, "boot.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	further := filepath.Join(m.cfg.DataDir, "registries", b.cfg.GRPCListen)
	before := boot(further)
	left, err := agent.Leave(t.Context(), m.cfg, "A.test") // the port is the default, the case none
	if err != nil || !slices.Equal(left.Removed, []string{m.file(a)}) || len(left.Left) != 1 || left.Left[0].Domain != a.domain {
		t.Fatalf("left %+v, %v", left, err)
	}
	if m.pulls(a) || !m.pulls(b) {
		t.Error("one registry is left, and only that")
	}
	b.rotate()
	if now := boot(further); now != before {
		t.Errorf("the other membership was served anew: boot %s, before %s", now, before)
	}
	if all := m.status(); len(all) != 1 || all[0].Domain != b.domain || !all[0].Connected {
		t.Errorf("status: %+v", all)
	}
	c := newRealm(t, "a.test:5000") // made anew, where the first was
	m.join(c)
	c.trusted()
	if !m.pulls(c) || !m.pulls(b) {
		t.Error("the place of the first is another's now")
	}
	if _, err := agent.LeaveAll(t.Context(), m.cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(m.cfg.DockerCertsDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the agent made %s, and it stays: %v", m.cfg.DockerCertsDir, err)
	}
	if _, err := os.Lstat(filepath.Dir(further)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s stays: %v", filepath.Dir(further), err)
	}
	if _, err := agent.ReadAll(m.cfg); !errors.Is(err, agent.ErrNotJoined) {
		t.Errorf("after the last was left: %v", err)
	}
	if _, err := a.admin.RemoveHost(t.Context(), &pb.RemoveHostRequest{Host: "web-1"}); err != nil {
		t.Fatal(err)
	}
	m.join(a) // still running
	eventually(t, "it is served again", func() bool { return m.of(a).Connected })
}

// TestDamagedMembership: one whose files cannot be used is shown and tried again, and
// the other goes on; alone, it ends the agent.
func TestDamagedMembership(t *testing.T) {
	a, b := newRealm(t, "a.test:5000"), newRealm(t, "b.test:5000")
	for _, c := range []struct {
		hurt, whole *realm
	}{{a, b}, {b, a}} {
		m := newMachine(t)
		m.join(a, b)
		file := filepath.Join(m.cfg.DataDir, "trusted.json")
		if c.hurt == b {
			file = filepath.Join(m.cfg.DataDir, "registries", b.cfg.GRPCListen, "trusted.json")
		}
		good, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte("{"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		var ready atomic.Int32
		m.cfg.Ready = func() { ready.Add(1) }
		m.start()
		eventually(t, c.whole.domain+" is served", func() bool { return m.of(c.whole).Connected })
		c.whole.rotate()
		eventually(t, "it is ready all the same", func() bool { return ready.Load() == 1 })
		problems := 0
		for _, s := range m.status() {
			if strings.Contains(s.Problem, "trusted.json is damaged") && s.Running && !s.Connected {
				problems++
			}
		}
		if problems != 1 {
			t.Errorf("%s is damaged, and the status says: %+v", c.hurt.domain, m.status())
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, c.hurt.domain+" is served again", func() bool { return m.of(c.hurt).Connected })
		m.run.end(t)
		if ready.Load() != 1 {
			t.Errorf("ready %d times", ready.Load())
		}
		if _, err := agent.Leave(t.Context(), m.cfg, c.whole.domain); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := agent.Run(t.Context(), m.cfg); err == nil || !strings.Contains(err.Error(), "trusted.json is damaged") {
			t.Errorf("alone: %v", err)
		}
		_, err = a.admin.RemoveHost(t.Context(), &pb.RemoveHostRequest{Host: "web-1"})
		if err == nil {
			_, err = b.admin.RemoveHost(t.Context(), &pb.RemoveHostRequest{Host: "web-1"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneRegistryOfAName: a server whose domain another membership has is refused, with
// a step after which the same line works; and so is a server that takes the name of
// another's registry for its own later.
func TestOneRegistryOfAName(t *testing.T) {
	a, twin := newRealm(t, "a.test:5000"), newRealm(t, "a.test:5000")
	m := newMachine(t)
	m.join(a)
	m.start()
	a.trusted()
	cfg := m.joining(twin)
	cfg.Name = "web-2"
	for range 2 {
		_, err := agent.Join(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), "a.test:5000 is a name of the registry a.test:5000 already") || !strings.Contains(err.Error(), "trustcast-agent leave a.test:5000") {
			t.Fatalf("a second registry of one name: %v", err)
		}
	}
	if !m.pulls(a) || m.pulls(twin) || len(m.status()) != 1 {
		t.Error("the refused server has left something")
	}
	wrong := m.joining(twin) // as if the server had been made anew
	wrong.Server = a.cfg.GRPCListen
	if _, err := agent.Join(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "another fleet") {
		t.Errorf("another fleet's token at a joined address: %v", err)
	}
	if _, err := agent.Leave(t.Context(), m.cfg, ""); err != nil {
		t.Fatal(err)
	}
	m.run = nil
	if r, err := agent.Join(t.Context(), cfg); err != nil || r.Name != "web-2" {
		t.Fatalf("the same line after leave: %+v, %v", r, err)
	}
	if hosts := twin.status().GetHosts(); len(hosts) != 1 {
		t.Errorf("the refused attempts have made %d hosts", len(hosts))
	}

	m.start()
	twin.trusted()
	b := newRealm(t, "b.test:5000", "a.test:5000")
	if _, err := agent.Join(t.Context(), m.joining(b)); err == nil || !strings.Contains(err.Error(), "a.test:5000 is a name of the registry a.test:5000 already") {
		t.Errorf("an alias that is another's name: %v", err)
	}
	eventually(t, "the status says so", func() bool { return strings.Contains(m.of(b).Problem, "a.test:5000 is a name of") })
	if !m.pulls(twin) || m.of(twin).Problem != "" {
		t.Error("a refused alias has touched the other registry")
	}
	if entries, err := os.ReadDir(filepath.Join(m.cfg.DockerCertsDir, "a.test:5000")); err != nil || len(entries) != 1 {
		t.Errorf("the other's directory holds %v, %v", entries, err)
	}
}

// TestReadyWithoutServers: the last-good state of every membership is on disk when Ready
// is called, and no server needs to answer for it.
func TestReadyWithoutServers(t *testing.T) {
	a, b := newRealm(t, "a.test:5000"), newRealm(t, "b.test:5000")
	m := newMachine(t)
	m.join(a, b)
	a.run.end(t)
	b.run.end(t)
	good := map[string]string{}
	for _, r := range []*realm{a, b} {
		data, err := os.ReadFile(m.file(r))
		if err != nil {
			t.Fatal(err)
		}
		good[m.file(r)] = string(data)
	}
	if err := os.RemoveAll(m.cfg.DockerCertsDir); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	m.cfg.Ready = func() {
		for path, want := range good {
			if have, err := os.ReadFile(path); err != nil || string(have) != want {
				found <- fmt.Errorf("when it is ready, %s is not as it was: %w", path, err)
				return
			}
		}
		found <- nil
	}
	ready := func() error {
		t.Helper()
		select {
		case err := <-found:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal("not ready within 20 s")
			return nil
		}
	}
	m.start()
	if err := ready(); err != nil {
		t.Error(err)
	}

	empty := newMachine(t)
	empty.cfg.AwaitJoin, empty.cfg.Ready = true, func() { found <- nil }
	empty.start()
	if err := ready(); err != nil { // nothing to install yet
		t.Error(err)
	}

	c := newRealm(t, "c.test:5000")
	first := newMachine(t)
	first.cfg = first.joining(c)
	first.cfg.Ready = func() {
		_, err := os.Stat(first.file(c))
		found <- err
	}
	first.start()
	if err := ready(); err != nil {
		t.Errorf("ready before the join is through: %v", err)
	}
}

// TestJoinWhileTheServerRestarts: a server that goes away after the enrolment, and is back
// soon, ends no join; one that does not answer at all does.
func TestJoinWhileTheServerRestarts(t *testing.T) {
	r := newRealm(t, "a.test:5000")
	m := newMachine(t)
	var dials atomic.Int32 // the enrolment, a visit to nobody, and one to the server that is back
	m.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == r.cfg.GRPCListen {
			switch dials.Add(1) {
			case 2:
				r.run.end(t)
			case 3:
				r.open()
			}
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	m.join(r)
	r.run.end(t)
	before := dials.Load()
	if _, err := agent.Join(t.Context(), m.cfg); !errors.Is(err, agent.ErrUnreachable) || dials.Load() != before+1 {
		t.Errorf("joined again, with the server away: %v after %d dials", err, dials.Load()-before)
	}
}

// TestJoinWhileTheServerHasNews: a host that joins is told a newer state while its first
// visit ends; it has joined all the same.
func TestJoinWhileTheServerHasNews(t *testing.T) {
	r := newRealm(t, "a.test:5000")
	newMachine(t).join(r) // it does not run, and the rotation waits for it
	started, err := r.admin.RotateCA(t.Context(), &pb.RotateCARequest{Deadline: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	var states atomic.Int64
	news := func() error { // each one a state
		longer := time.Hour + time.Duration(states.Add(1)%2)*time.Minute
		_, err := r.admin.RotateCA(t.Context(), &pb.RotateCARequest{Rotation: started.GetRotation(), Deadline: durationpb.New(longer)})
		return err
	}
	m := newMachine(t)
	m.cfg.Name = "web-2"
	visiting := false // after the enrolment
	m.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil && address == r.cfg.GRPCListen {
			if visiting {
				conn = &overtaken{Conn: conn, news: func() error {
					if states.Load() > 20 { // the first visit has seen enough
						return nil
					}
					return news()
				}}
			}
			visiting = true
		}
		return conn, err
	}
	m.join(r)
	t.Logf("it joined during %d states", states.Load())
}

// overtaken is a connection on which the other side has news, and mostly has told them,
// before it hears anything, the end of a visit too.
type overtaken struct {
	net.Conn
	news func() error
	read atomic.Int64
}

func (c *overtaken) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (c *overtaken) Write(p []byte) (int, error) {
	before := c.read.Load()
	if err := c.news(); err != nil {
		return 0, err
	}
	for limit := time.Now().Add(100 * time.Millisecond); c.read.Load() == before && time.Now().Before(limit); {
		time.Sleep(time.Millisecond) // in a handshake nothing is told
	}
	return c.Conn.Write(p)
}
