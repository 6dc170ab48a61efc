package crash

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// rotation is the plain one. The server has at least: two keys made and destroyed
// (6 + 4 points), the record four times (12), its copies in certs/. An agent: what
// it trusts four times (12), what it installs twice (6).
var rotation = event{
	name:     "rotation",
	least:    map[whom]int{inServer: 30, inAgent: 18},
	command:  []string{"ca", "rotate"},
	recorded: inHistory("rotate"),
	want:     rotated(1),
}

// others are what else may happen to the CAs and to the gossip key.
var others = []event{
	{
		// As a rotation, and the token (3), the ring four times (12), each with
		// its revision of the record (12). Agents may hear of those with what they
		// hear of the rotation.
		name:     "theft",
		least:    map[whom]int{inServer: 45, inAgent: 18},
		command:  []string{"ca", "rotate", "--compromised", "--yes"},
		recorded: inHistory("compromise"),
		excused:  readTooEarly,
		want: outcome{
			number: 1, generation: 3, reach: 2, stolen: true, rolled: true,
			history: []string{"created 1", "compromise 2", "switch 2", "retire 3", "done 3"},
		},
	},
	{
		// As a theft, and a host is left behind: the record (3) and its own (3).
		name:     "left-behind",
		least:    map[whom]int{inServer: 51, inAgent: 18},
		prepare:  func(s *site) { must(s.t, s.agents[1].pause()) },
		command:  []string{"ca", "rotate", "--compromised", "--yes", "--deadline", "2s"},
		recorded: inHistory("compromise"),
		release:  goOnOnceLeft,
		excused:  leftBehind,
		want: outcome{
			number: 1, generation: 3, reach: 2, stolen: true, rolled: true,
			history: []string{"created 1", "compromise 2", "switch 2", "uncover 2", "retire 3", "done 3"},
		},
	},
	{
		// The record three times (9), two keys destroyed (4).
		name:     "rollback",
		least:    map[whom]int{inServer: 13, inAgent: 9},
		tick:     heldTick,
		prepare:  holdSwitched,
		command:  []string{"ca", "rollback"},
		recorded: inHistory("rollback"),
		release:  goOn,
		want: outcome{
			number: 1, generation: 3, reach: 1,
			history: []string{"created 1", "rotate 2", "switch 2", "rollback 2", "rollback 3", "done 3"},
		},
	},
	{
		// As a rotation, and two keys more are destroyed (4).
		name:     "replace",
		least:    map[whom]int{inServer: 34, inAgent: 18},
		tick:     heldTick,
		prepare:  holdStaged,
		command:  []string{"ca", "rotate", "--replace"},
		recorded: inHistory("replace"),
		release:  goOn,
		want: outcome{
			number: 2, generation: 4, reach: 1, predecessors: 1,
			history: []string{"created 1", "rotate 2", "replace 3", "switch 3", "retire 4", "done 4"},
		},
	},
	{
		// The ring four times (12), each with a revision of the record (12).
		name:     "roll",
		least:    map[whom]int{inServer: 24, inAgent: 12},
		command:  []string{"fleet", "roll-gossip-key"},
		recorded: ringRolls,
		want:     outcome{generation: 1, reach: 1, rolled: true, history: []string{"created 1"}},
	},
	{
		// The server's record (3) and a revision (3); the agent's identity (3).
		name:     "reissue",
		least:    map[whom]int{inServer: 6, inAgent: 3},
		prepare:  ageControlCA,
		recorded: func(*site) bool { return false }, // it comes by itself, again if need be
		want:     outcome{generation: 1, reach: 1, reissued: true, history: []string{"created 1"}},
	},
}

// TestServerRotation kills the server at each durable write of a rotation.
func TestServerRotation(t *testing.T) { strikeAll(t, inServer, rotation) }

// TestAgentRotation kills an agent at each durable write of a rotation.
func TestAgentRotation(t *testing.T) { strikeAll(t, inAgent, rotation) }

// TestServerEvents kills the server at durable writes of what else may happen.
func TestServerEvents(t *testing.T) { strikeOthers(t, inServer) }

// TestAgentEvents does the same to an agent.
func TestAgentEvents(t *testing.T) { strikeOthers(t, inAgent) }

func strikeAll(t *testing.T, w whom, e event) {
	series{least: e.least[w], find: findIn(w, e), strike: strikeIn(w, e)}.run(t)
}

func strikeOthers(t *testing.T, w whom) {
	for _, e := range others {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			series{least: e.least[w], sampled: true, find: findIn(w, e), strike: strikeIn(w, e)}.run(t)
		})
	}
}

// inHistory: the authority's record has an event.
func inHistory(name string) func(*site) bool {
	return func(s *site) bool {
		rec, err := s.authority()
		must(s.t, err)
		return slices.ContainsFunc(rec.Value.History, func(e entry) bool { return e.Event == name })
	}
}

// ringRolls: the gossip ring is not the first one any more.
func ringRolls(s *site) bool {
	rec, err := s.control()
	must(s.t, err)
	return rec.Value.Version > 0
}

// holdStaged begins a rotation that waits for the second host.
func holdStaged(s *site) {
	must(s.t, s.agents[1].pause())
	_, err := s.trustcast("ca", "rotate")
	must(s.t, err)
	s.awaitHeld("staged", 1)
}

// holdSwitched begins a rotation that switches, and then waits for the second
// host. Each host is stopped once it has said what the switch needs and before it
// can say more.
func holdSwitched(s *site) {
	must(s.t, s.agents[0].pause())
	_, err := s.trustcast("ca", "rotate")
	must(s.t, err)
	s.awaitHeld("staged", 0)
	must(s.t, s.agents[1].pause())
	must(s.t, s.agents[0].goOn())
	s.awaitHeld("switched", 1)
}

// awaitHeld waits until a rotation waits for one host and for nobody else.
func (s *site) awaitHeld(phase string, host int) {
	s.t.Helper()
	_, err := s.await("held at "+phase, func(st *pb.Status) bool {
		w := st.GetRotation().GetWaitingFor()
		held := st.GetRotation().GetPhase() == phase && len(w) == 1 && w[0].GetHost() == hostName(host)
		return held || s.agents[0].ended()
	})
	must(s.t, err)
}

func goOn(s *site) { must(s.t, s.agents[1].goOn()) }

// goOnOnceLeft lets the second host go on when the server has left it behind, or
// has ended before it could.
func goOnOnceLeft(s *site) {
	left := inHistory("uncover")
	must(s.t, until("a host is left behind", func() (bool, string) { return left(s) || s.server.ended(), s.server.out.String() }))
	if !s.server.ended() {
		goOn(s)
	}
}

// excuse says whether a client of a host may fail that has seen some roots.
type excuse func(s *site, host int, seen []*x509.Certificate) bool

// readTooEarly: the host got the new CA after this client had read the file, and
// with a stolen key no predecessor makes up for that.
func readTooEarly(s *site, host int, seen []*x509.Certificate) bool {
	now, err := s.roots(host)
	return err == nil && !slices.EqualFunc(now, seen, (*x509.Certificate).Equal)
}

// leftBehind: the switch is on record and names the host as one that it does not
// wait for, since the deadline is short; or the host got the new CA too late for this
// client. Before the switch the first CA serves, and no client may fail.
func leftBehind(s *site, host int, seen []*x509.Certificate) bool {
	if len(seen) != 1 || !seen[0].Equal(s.first.root) {
		return false
	}
	rec, err := s.authority()
	if err != nil {
		return false
	}
	i := slices.IndexFunc(rec.Value.History, func(e entry) bool { return e.Event == "switch" })
	return i >= 0 && (strings.Contains(rec.Value.History[i].Detail, hostName(host)) || readTooEarly(s, host, seen))
}

// age is more than a control CA reaches: it is re-issued at half of its life, ten
// years, and a spread.
const age = 20

// ageControlCA stops the server and makes its control CA so old that it is due
// from the next start on.
func ageControlCA(s *site) {
	must(s.t, s.server.terminate())
	var file map[string]json.RawMessage
	must(s.t, readJSON(s.record("control"), &file))
	var value map[string]json.RawMessage
	must(s.t, json.Unmarshal(file["value"], &value))
	var err error
	value["ca_made"], err = json.Marshal(time.Now().AddDate(-age, 0, 0))
	must(s.t, err)
	file["value"], err = json.Marshal(value)
	must(s.t, err)
	data, err := json.Marshal(file)
	must(s.t, err)
	must(s.t, os.WriteFile(s.record("control"), data, 0o600))
}
