package gossip

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var keyA, keyB = bytes.Repeat([]byte{0xa}, keySize), bytes.Repeat([]byte{0xb}, keySize)

// fleet runs members until the test ends and wakes it on every change.
type fleet struct {
	t       *testing.T
	changed chan struct{}
}

func newFleet(t *testing.T) *fleet { return &fleet{t, make(chan struct{}, 1)} }

func (f *fleet) start(cfg Config) *Member {
	f.t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = [][]byte{keyA}
	}
	if cfg.Transport == nil && cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	cfg.Changed = func() {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
	m, err := Start(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

// run runs a member and returns what ends it and waits.
func (f *fleet) run(m *Member) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("run %s: %v", m.cfg.Name, err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// await waits until a condition of the members holds.
func (f *fleet) await(what string, holds func() bool) {
	f.t.Helper()
	giveUp := time.NewTimer(time.Minute)
	defer giveUp.Stop()
	for !holds() {
		select {
		case <-f.changed:
		case <-giveUp.C:
			f.t.Fatalf("still waiting: %s", what)
		}
	}
}

// three starts members a, b and c that know each other; b and c join a.
func three(t *testing.T) (f *fleet, members []*Member, stops []func()) {
	f = newFleet(t)
	var peers []string
	for _, name := range []string{"a", "b", "c"} {
		m := f.start(Config{Name: name, Peers: peers, Meta: []byte("meta of " + name)})
		peers = []string{m.Address()}
		if len(members) > 0 {
			peers = []string{members[0].Address()}
		}
		members, stops = append(members, m), append(stops, f.run(m))
	}
	f.await("all see each other", func() bool { return see(members, "a", "b", "c") })
	return f, members, stops
}

// see says whether each of the members sees exactly these alive, but itself.
func see(members []*Member, names ...string) bool {
	return !slices.ContainsFunc(members, func(m *Member) bool {
		var alive []string
		for _, p := range m.Members() {
			if p.Alive {
				alive = append(alive, p.Name)
			}
		}
		others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == m.cfg.Name })
		return !slices.Equal(alive, others)
	})
}

func metaOf(m *Member, name string) string {
	for _, p := range m.Members() {
		if p.Name == name {
			return string(p.Meta)
		}
	}
	return ""
}

func TestMembersMeetAndHearNews(t *testing.T) {
	t.Parallel()
	f, ms, stops := three(t)
	if got := metaOf(ms[2], "b"); got != "meta of b" {
		t.Errorf("c reads %q as b's metadata", got)
	}
	if !ms[0].Reached() || !ms[0].Alive("c") || ms[0].Alive("d") {
		t.Error("a does not see who is there")
	}
	if err := ms[0].SetMeta([]byte("news")); err != nil {
		t.Fatal(err)
	}
	f.await("the news arrive", func() bool { return metaOf(ms[1], "a") == "news" && metaOf(ms[2], "a") == "news" })

	stops[2]()
	f.await("c has left", func() bool { return see(ms[:2], "a", "b") })
	if err := ms[2].SetMeta([]byte("late")); err != nil {
		t.Errorf("metadata after the end: %v", err)
	}
	if err := ms[2].Run(t.Context()); err == nil {
		t.Error("a member ran twice")
	}
}

func TestDeathIsNoticed(t *testing.T) {
	t.Parallel()
	f, ms, _ := three(t)
	if err := ms[2].net.Shutdown(); err != nil {
		t.Fatal(err)
	}
	f.await("c is dead", func() bool { return see(ms[:2], "a", "b") })
	if ms[0].Alive("c") || !ms[0].Reached() {
		t.Error("a sees the dead alive")
	}
}

func TestKeysRoll(t *testing.T) {
	t.Parallel()
	f, ms, _ := three(t)
	for _, ring := range [][][]byte{{keyA, keyB}, {keyB, keyA}, {keyB}} {
		for _, m := range ms {
			if err := m.SetKeys(ring); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(m.ring.GetKeys(), ring, bytes.Equal) {
				t.Fatalf("the ring is not what was set")
			}
		}
	}
	if err := ms[0].SetMeta([]byte("under the new key")); err != nil {
		t.Fatal(err)
	}
	f.await("the news arrive", func() bool { return metaOf(ms[2], "a") == "under the new key" })

	old := f.start(Config{Name: "old"})
	f.run(old)
	if n, err := old.list.Join([]string{ms[0].Address()}); n != 0 || err == nil {
		t.Errorf("the old key joined %d members (%v)", n, err)
	}
	if old.Reached() || ms[0].Alive("old") {
		t.Error("the old key was let in")
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	good := Config{Name: "a", Listen: "127.0.0.1:0", Keys: [][]byte{keyA}}
	for name, change := range map[string]func(*Config){
		"no name":        func(c *Config) { c.Name = "" },
		"slash":          func(c *Config) { c.Name = "a/b" },
		"long name":      func(c *Config) { c.Name = strings.Repeat("a", maxName+1) },
		"no key":         func(c *Config) { c.Keys = nil },
		"short key":      func(c *Config) { c.Keys = [][]byte{keyA[:16]} },
		"long metadata":  func(c *Config) { c.Meta = make([]byte, MaxMeta+1) },
		"taken":          func(c *Config) { c.Listen = taken.Addr().String() },
		"no such domain": func(c *Config) { c.Advertise = "host.invalid." },
		"address":        func(c *Config) { c.Transport = NewNetwork(1).Transport("nowhere") },
	} {
		cfg := good
		change(&cfg)
		_, err := Start(cfg)
		if err == nil {
			t.Errorf("%s: started", name)
		}
		if isListen := errors.Is(err, ErrListen); isListen != (name == "taken") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunOfAnEndedContextEnds(t *testing.T) {
	t.Parallel()
	m := newFleet(t).start(Config{Name: "a"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Run(ctx); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", m.Address()); err == nil {
		_ = conn.Close()
		t.Error("the port is still open")
	}
}
