package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func node(name string) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IPv4(10, 0, 0, 1), Port: 7947}
}

func TestTableRefusesNonsense(t *testing.T) {
	tab := newTable("self", nil, slog.New(slog.DiscardHandler))
	for what, change := range map[string]func(*memberlist.Node){
		"no name":     func(n *memberlist.Node) { n.Name = "" },
		"newline":     func(n *memberlist.Node) { n.Name = "a\nb" },
		"metadata":    func(n *memberlist.Node) { n.Meta = make([]byte, MaxMeta+1) },
		"no address":  func(n *memberlist.Node) { n.Addr = nil },
		"bad address": func(n *memberlist.Node) { n.Addr = []byte{1, 2, 3} },
		"unspecified": func(n *memberlist.Node) { n.Addr = net.IPv6zero },
		"multicast":   func(n *memberlist.Node) { n.Addr = net.IPv4(224, 0, 0, 1) },
		"no port":     func(n *memberlist.Node) { n.Port = 0 },
	} {
		n := node("a")
		if err := tab.NotifyAlive(n); err != nil {
			t.Fatal(err)
		}
		change(n)
		if tab.NotifyAlive(n) == nil {
			t.Errorf("%s: admitted", what)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tab := newTable("self", nil, slog.New(slog.DiscardHandler))
		for i := range maxMembers {
			n := node(fmt.Sprint(i))
			if err := tab.NotifyAlive(n); err != nil {
				t.Fatal(err)
			}
			tab.NotifyJoin(n)
		}
		if err := tab.NotifyAlive(node("late")); !errors.Is(err, errFull) {
			t.Errorf("one too many: %v", err)
		}
		if err := errors.Join(tab.NotifyAlive(node("7")), tab.NotifyAlive(node("self"))); err != nil {
			t.Errorf("who is known: %v", err)
		}

		tab.NotifyLeave(node("7"))
		time.Sleep(reapAfter)
		if err := tab.NotifyAlive(node("late")); !errors.Is(err, errFull) {
			t.Errorf("while memberlist may still hold the dead: %v", err)
		}
		time.Sleep((maxMembers + 1) * time.Second)
		if err := tab.NotifyAlive(node("late")); err != nil {
			t.Errorf("in the place of the dead: %v", err)
		}
	})
}

func TestTableForgetsTheDeadAfterADay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tab := newTable("self", nil, slog.New(slog.DiscardHandler))
		for _, name := range []string{"a", "b", "c"} {
			tab.NotifyJoin(node(name))
		}
		tab.NotifyLeave(node("a"))
		tab.NotifyLeave(node("b"))
		tab.NotifyLeave(node("b")) // said twice
		tab.NotifyJoin(node("self"))
		alive, dead := tab.lost(1)
		if len(alive) != 1 || len(dead) != 1 || tab.countAlive() != 1 || len(tab.members()) != 3 {
			t.Errorf("alive %v, dead %v, members %v", alive, dead, tab.members())
		}
		time.Sleep(forgetAfter + time.Second)
		if _, dead := tab.lost(1); len(dead) != 0 || len(tab.members()) != 1 {
			t.Errorf("still known: %v", tab.members())
		}
	})
}

func TestTableKeepsCopies(t *testing.T) {
	tab := newTable("self", nil, slog.New(slog.DiscardHandler))
	n := node("a")
	n.Meta = []byte("right")
	tab.NotifyJoin(n)
	copy(n.Meta, "wrong")
	copy(tab.members()[0].Meta, "wrong")
	if got := string(tab.members()[0].Meta); got != "right" {
		t.Errorf("the table holds %q", got)
	}
}

// Whatever ring follows whatever ring, the new one is held, its first key first.
func TestRingIsReplaced(t *testing.T) {
	keys := make([][]byte, 5)
	for i := range keys {
		keys[i] = bytes.Repeat([]byte{byte(i)}, keySize)
	}
	ring, err := newRing(keys[:1])
	if err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		dice.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		want := keys[:1+dice.IntN(len(keys))]
		readers := ring.GetKeys()
		before := slices.Clone(readers)
		if err := replaceRing(ring, want); err != nil {
			t.Fatal(err)
		}
		held := ring.GetKeys()
		if len(held) != len(want) || !bytes.Equal(held[0], want[0]) || slices.ContainsFunc(want, func(k []byte) bool { return !containsKey(held, k) }) {
			t.Fatalf("holds %v, want %v", held, want)
		}
		if !slices.EqualFunc(before, readers, bytes.Equal) {
			t.Fatal("the ring that readers hold changed under them")
		}
	}
}
