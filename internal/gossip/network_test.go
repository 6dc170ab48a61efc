package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f in simulated time, on one processor: with more, the race
// detector crashes over the timers of a bubble (golang/go#78156).
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

// world is a fleet in simulated time.
type world struct {
	*fleet
	net     *Network
	members []*Member
	stops   []func()
}

func addressOf(i int) string { return fmt.Sprintf("10.0.%d.%d:7947", i/250, i%250+1) }
func nameOf(i int) string    { return fmt.Sprintf("h%04d", i) }

// newWorld starts n members that join the first. Call end before the bubble's
// function returns: its clock stops there.
func newWorld(t *testing.T, n int, loss float64) *world {
	w := &world{fleet: newFleet(t), net: NewNetwork(7)}
	w.net.SetLoss(loss)
	for i := range n {
		m, stop := w.attach(nameOf(i), addressOf(i))
		w.members, w.stops = append(w.members, m), append(w.stops, stop)
	}
	return w
}

func (w *world) attach(name, address string) (*Member, func()) {
	m := w.start(Config{Name: name, Transport: w.net.Transport(address), Peers: []string{addressOf(0)}})
	return m, w.run(m)
}

func (w *world) end() {
	var wg sync.WaitGroup
	for _, stop := range w.stops {
		wg.Go(stop)
	}
	wg.Wait()
	w.net.Close()
}

// within waits in simulated time.
func (w *world) within(limit time.Duration, what string, holds func() bool) {
	w.t.Helper()
	start := time.Now()
	for !holds() {
		if time.Since(start) > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Second)
	}
	w.t.Logf("%s: after %v", what, time.Since(start))
}

func (w *world) all() []string {
	var names []string
	for _, m := range w.members {
		names = append(names, m.cfg.Name)
	}
	return names
}

func TestFiftyMembersWithLoss(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 50, 0.2)
		defer w.end()
		w.within(5*time.Minute, "all see each other", func() bool { return see(w.members, w.all()...) })
		if err := w.members[0].SetMeta([]byte("generation 2")); err != nil {
			t.Fatal(err)
		}
		w.within(5*time.Minute, "all heard the news", func() bool {
			return !slices.ContainsFunc(w.members[1:], func(m *Member) bool { return metaOf(m, nameOf(0)) != "generation 2" })
		})
		w.net.SetDown(addressOf(20), true)
		w.within(5*time.Minute, "all noticed that one is gone", func() bool {
			return see(slices.Delete(slices.Clone(w.members), 20, 21), slices.Delete(w.all(), 20, 21)...)
		})
		w.net.SetDown(addressOf(20), false)
		w.within(5*time.Minute, "it is back", func() bool { return see(w.members, w.all()...) })
	})
}

// One that is cut off probes the others one by one, ever more slowly, until it
// knows that it is alone.
func TestCutOffMemberComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5, 0)
		defer w.end()
		w.within(time.Minute, "all see each other", func() bool { return see(w.members, w.all()...) })
		w.net.SetDown(addressOf(3), true)
		w.within(5*time.Minute, "it is alone", func() bool { return !w.members[3].Reached() && !w.members[0].Alive(nameOf(3)) })
		w.net.SetDown(addressOf(3), false)
		w.within(2*time.Minute, "it is back", func() bool { return see(w.members, w.all()...) })
	})
}

// A partition longer than memberlist remembers the dead (30 s), which it would
// never heal by itself; also when the side without the peers has to be found.
func TestPartitionHeals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 12, 0)
		defer w.end()
		w.within(time.Minute, "all see each other", func() bool { return see(w.members, w.all()...) })
		for i, m := range w.members {
			if i > 0 {
				m.SetPeers(nil)
			}
		}
		var near []string
		for i := range 6 {
			near = append(near, addressOf(i))
		}
		w.net.Partition(near)
		w.within(3*time.Minute, "the sides lost each other", func() bool {
			return see(w.members[:6], w.all()[:6]...) && see(w.members[6:], w.all()[6:]...)
		})
		time.Sleep(5 * time.Minute)
		if !see(w.members[:6], w.all()[:6]...) {
			t.Error("the partition has holes")
		}
		w.net.Partition()
		w.within(5*time.Minute, "the sides found each other", func() bool { return see(w.members, w.all()...) })
	})
}

func TestAddressChangeIsAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5, 0)
		defer w.end()
		w.within(time.Minute, "all see each other", func() bool { return see(w.members, w.all()...) })

		w.net.SetDown(addressOf(4), true) // so that its polite leave is not heard
		w.stops[4]()
		w.members[4], w.stops[4] = w.attach(nameOf(4), "10.9.9.9:7947")
		w.within(5*time.Minute, "all see it at its new address", func() bool {
			return see(w.members, w.all()...) && !slices.ContainsFunc(w.members[:4], func(m *Member) bool {
				return !slices.ContainsFunc(m.Members(), func(p Peer) bool {
					return p.Name == nameOf(4) && p.Address == "10.9.9.9:7947" && p.Alive
				})
			})
		})
	})
}

func TestRestartAtOnceIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5, 0)
		defer w.end()
		w.within(time.Minute, "all see each other", func() bool { return see(w.members, w.all()...) })
		w.stops[0]() // the one that the others join
		w.members[0], w.stops[0] = w.attach(nameOf(0), addressOf(0))
		w.within(20*time.Second, "all see it again", func() bool { return see(w.members, w.all()...) })
	})
}

// The first holder of a name keeps it, and the log says once that another
// wants it.
func TestNameClaimedTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var logged bytes.Buffer
		w := newWorld(t, 1, 0)
		defer w.end()
		w.members[0].table.log = slog.New(slog.NewTextHandler(&logged, nil)) // nobody has joined yet
		first, stopFirst := w.attach("same", addressOf(1))
		w.within(time.Minute, "the first is there", func() bool { return w.members[0].Alive("same") })
		_, stopSecond := w.attach("same", addressOf(2))
		w.stops = append(w.stops, stopFirst, stopSecond)
		time.Sleep(5 * time.Minute)
		if at := w.members[0].Members()[0].Address; at != first.Address() {
			t.Errorf("the name went to %s", at)
		}
		if n := strings.Count(logged.String(), "two members use one gossip name"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &logged)
		}
	})
}

func TestNetworkAddressIsTakenOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.end()
		_, err := Start(Config{Name: "b", Keys: [][]byte{keyA}, Transport: w.net.Transport(addressOf(0))})
		if !errors.Is(err, ErrListen) {
			t.Errorf("a taken address: %v", err)
		}
	})
}
