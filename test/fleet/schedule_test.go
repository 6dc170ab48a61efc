//go:build linux

package fleet_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// kind of trouble.
type kind string

const (
	killServer kind = "kill -9 server"
	killAgent  kind = "kill -9 agent"
	linkDown   kind = "link down"
	packetLoss kind = "packet loss"
	slowLink   kind = "slow link"
	wrongClock kind = "wrong clock"
	// The two that break a host: it holds the rotation until somebody acts.
	fullDisk kind = "full disk"
	readOnly kind = "read-only certs.d"
)

// passing are the troubles that nobody has to do anything about.
var passing = []kind{killServer, killAgent, linkDown, packetLoss, slowLink, wrongClock}

// trouble is one thing that goes wrong, and when, counted from the start of its
// round.
type trouble struct {
	kind kind
	host int // index of the host; -1: the server
	// percent of lost packets, milliseconds of delay each way, minutes that the
	// clock is wrong by.
	amount     int
	at, length time.Duration
}

func (p trouble) String() string {
	text := string(p.kind)
	if p.host >= 0 {
		text = fmt.Sprintf("h%d %s", p.host+1, p.kind)
	}
	switch p.kind {
	case packetLoss:
		text += fmt.Sprintf(" %d%%", p.amount)
	case slowLink:
		text += fmt.Sprintf(" %dms", p.amount)
	case wrongClock:
		text += fmt.Sprintf(" %+dm", p.amount)
	}
	if p.length > 0 {
		return fmt.Sprintf("%s at %.1fs for %.1fs", text, p.at.Seconds(), p.length.Seconds())
	}
	return fmt.Sprintf("%s at %.2fs", text, p.at.Seconds())
}

// round is one rotation and what goes wrong around it.
type round struct {
	rotateAt time.Duration
	troubles []trouble
	// broken, if there is one, begins before the rotation and holds it until
	// the host is mended or, with skip, passed over.
	broken *trouble
	skip   bool
}

func (r round) String() string {
	parts := []string{fmt.Sprintf("rotate at %.1fs", r.rotateAt.Seconds())}
	if r.broken != nil {
		end := "until it is mended"
		if r.skip {
			end = "until it is skipped"
		}
		parts = append(parts, fmt.Sprintf("h%d %s %s", r.broken.host+1, r.broken.kind, end))
	}
	for _, p := range r.troubles {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, "; ")
}

// drawSchedule is the same for the same seed. Each passing trouble comes in
// turn, in an order drawn, with up to two more beside it. Every fourth round has
// a broken host, by turns one with a full disk, which is the last host, and one
// with a read-only certs.d; of four of them, two are skipped.
func drawSchedule(seed uint64, hosts, rounds int) []round {
	r := rand.New(rand.NewPCG(seed, 0))
	var turns []kind
	for len(turns) < rounds {
		turns = append(turns, passing...)
	}
	turns = turns[:rounds]
	r.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	var all []round
	broken := 0
	for i, first := range turns {
		next := round{rotateAt: tenths(r, 5, 25)}
		if i%4 == 3 {
			next.broken = &trouble{kind: readOnly, host: r.IntN(hosts)}
			if broken%2 == 0 {
				next.broken = &trouble{kind: fullDisk, host: hosts - 1}
			}
			next.skip = broken%4 >= 2
			broken++
		}
		kinds := []kind{first}
		for range r.IntN(3) {
			kinds = append(kinds, passing[r.IntN(len(passing))])
		}
		for _, k := range kinds {
			p := draw(r, k, hosts, next.rotateAt)
			if next.broken != nil && p.host == next.broken.host || next.collides(p) {
				continue
			}
			next.troubles = append(next.troubles, p)
		}
		all = append(all, next)
	}
	return all
}

// collides: the same thing is wrong there already, or the agent is restarted by
// two troubles at once.
func (r round) collides(p trouble) bool {
	return slices.ContainsFunc(r.troubles, func(q trouble) bool {
		return p.host == q.host && (p.kind == q.kind || p.restarts() && q.restarts())
	})
}

// restarts: it starts the agent anew.
func (p trouble) restarts() bool {
	return p.kind == killAgent || p.kind == slowLink || p.kind == wrongClock
}

// draw puts a trouble around a rotation, which is over after half a second if
// nothing holds it up: what lasts has mostly begun before it, and a kill comes
// from just before it to just after it.
func draw(r *rand.Rand, k kind, hosts int, rotateAt time.Duration) trouble {
	p := trouble{kind: k, host: r.IntN(hosts), at: max(0, rotateAt-tenths(r, -2, 15)), length: tenths(r, 10, 50)}
	killAt := max(0, rotateAt-200*time.Millisecond+time.Duration(r.IntN(80))*10*time.Millisecond)
	switch k {
	case killServer:
		p.host, p.at, p.length = -1, killAt, 0
	case killAgent:
		p.at, p.length = killAt, 0
	case packetLoss:
		p.amount = 5 + r.IntN(16)
	case slowLink:
		p.amount = 50 + r.IntN(351)
	case wrongClock:
		p.amount = 50 * (1 - 2*r.IntN(2))
	}
	return p
}

func tenths(r *rand.Rand, least, most int) time.Duration {
	return time.Duration(least+r.IntN(most-least+1)) * 100 * time.Millisecond
}

// moment is something to do at a time of a round.
type moment struct {
	at   time.Duration
	what string
	do   func() error
}

// inOrder sorts moments by time; those of the same time stay as they were.
func inOrder(m []moment) []moment {
	slices.SortStableFunc(m, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	return m
}

// TestSchedule: the same seed is the same schedule, another seed another, and
// each kind of trouble comes, whatever the seed.
func TestSchedule(t *testing.T) {
	const hosts, rounds = 5, 20
	text := func(seed uint64) string { return fmt.Sprint(drawSchedule(seed, hosts, rounds)) }
	if first, again := text(1), text(1); first != again || first == text(2) {
		t.Error("the schedule does not follow from the seed")
	}
	for seed := range uint64(200) {
		all := text(seed)
		for _, k := range append(slices.Clone(passing), fullDisk, readOnly, "until it is skipped", "until it is mended") {
			if !strings.Contains(all, string(k)) {
				t.Errorf("seed %d: no %s", seed, k)
			}
		}
		for i, r := range drawSchedule(seed, hosts, rounds) {
			for _, p := range r.troubles {
				if r.broken != nil && p.host == r.broken.host {
					t.Errorf("seed %d, round %d: %v and %v are the same host's", seed, i+1, p, r.broken)
				}
			}
		}
	}
}
