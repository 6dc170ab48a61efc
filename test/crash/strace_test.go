package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/test/images"
)

const (
	// leastReport is below the smallest report (170 bytes with TLS) and above
	// what HTTP/2 says for itself (at most 100).
	leastReport = 150
	// leastTrusted is how often an agent has to write what it trusts: for the first
	// bundle, both CAs and the new one. Of what follows quickly it writes the newest.
	leastTrusted = 3
	// leastWanted is below what hosts are told: a message with certificates.
	leastWanted = 500
)

// TestDurableOrder looks at the programs as they are shipped, from outside: each
// record is written, synced, renamed, and its directory synced, in this order,
// and only then does a message leave that could tell of it.
func TestDurableOrder(t *testing.T) {
	tracer := straceOrSkip(t)
	s := newSite(t, shipped)
	s.tick = slowTick
	// A directory of its own: the agent watches what is beside certs.d.
	traces := filepath.Join(s.dir, "traces")
	must(t, os.Mkdir(traces, 0o700))
	file := func(name string) string { return filepath.Join(traces, name) }
	s.tracer = func(name string) []string { return tracer(file(name)) }
	s.open(inServer, crash{})
	_, err := s.trustcast("ca", "rotate")
	must(t, err)
	_, err = s.await("the rotation has ended", settled(3))
	must(t, err)
	must(t, s.awaitGood(rotated(1)))
	var record struct{ Rev uint64 }
	must(t, readJSON(s.record("authority"), &record))
	var heard struct{ Revision uint64 }
	for i := range agents { // they hear last that the rotation is done, and nothing else waits for that
		must(t, until(hostName(i)+" has heard of the end", func() (bool, string) {
			err := readJSON(filepath.Join(s.agentDir(i), "trusted.json"), &heard)
			return err == nil && heard.Revision == record.Rev, fmt.Sprintf("of revision %d of %d (%v)", heard.Revision, record.Rev, err)
		}))
	}
	for _, p := range append(s.agents[:], s.server) {
		must(t, p.terminate())
	}
	s.judgeTrace("server", file("server"), s.judgeServer)
	for i := range agents {
		s.judgeTrace(hostName(i), file(hostName(i)), func(calls []call) (int, error) { return s.judgeAgent(i, calls) })
	}
}

// judgeTrace judges the trace of one program; then it doctors it, and each time
// the judge must complain.
func (s *site) judgeTrace(name, file string, judge func([]call) (int, error)) {
	s.t.Helper()
	data, err := os.ReadFile(file)
	must(s.t, err)
	calls, err := parseTrace(bytes.NewReader(data))
	must(s.t, err)
	n, err := judge(calls)
	if err != nil {
		s.t.Errorf("%s: %v\n%s", name, err, data)
		return
	}
	s.t.Logf("%s: %d durable changes in %d calls, in order", name, n, len(calls))
	for want, doctor := range doctors {
		if _, err := judge(doctored(calls, doctor)); err == nil || !strings.Contains(err.Error(), want) {
			s.t.Errorf("%s: doctored, the trace must show %q, the verdict is %v", name, want, err)
		}
	}
}

// doctors spoil the sync of a directory, or of a file that is still temporary,
// in the way that their key names.
var doctors = map[string]func(sync call, ofFile bool) call{
	"its directory never synced": func(sync call, ofFile bool) call {
		if !ofFile {
			sync.result = -1
		}
		return sync
	},
	"renamed before it was synced": func(sync call, ofFile bool) call {
		if ofFile {
			sync.end += late
		}
		return sync
	},
	"left before": func(sync call, ofFile bool) call {
		if !ofFile {
			sync.end += late
		}
		return sync
	},
}

// late is how many lines later a doctored sync ends.
const late = 1000

func doctored(calls []call, doctor func(call, bool) call) []call {
	out := slices.Clone(calls)
	for i, c := range out {
		if c.name == "fsync" {
			out[i] = doctor(c, strings.HasPrefix(filepath.Base(c.fd()), "."))
		}
	}
	return out
}

// straceOrSkip returns what to put in front of a program to have its trace in a
// file. The program dies with strace.
func straceOrSkip(t *testing.T) func(file string) []string {
	strace, err := exec.LookPath("strace")
	if err != nil {
		images.Skip(t, "needs strace (Debian's strace)")
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, "/bin/true").CombinedOutput(); err != nil {
		images.Skip(t, fmt.Sprintf("needs leave to trace: strace: %v: %s", err, out))
	}
	var bound []string
	if setpriv, err := exec.LookPath("setpriv"); err == nil {
		bound = []string{setpriv, "--pdeathsig", "KILL"}
	}
	return func(file string) []string {
		return append([]string{strace, "-f", "-yy", "-s", "0", "-e", "signal=none", "-e", "trace=" + traced, "-o", file}, bound...)
	}
}

// judgeServer: what is recorded lasts before a host hears of it; a key lasts
// before the record that names it, and goes after the record that forgets it.
func (s *site) judgeServer(calls []call) (int, error) {
	all, problems := changes(calls, s.serverDir())
	record, keys := of(all, "records/authority.json"), of(all, "keys/*.key")
	problems = errors.Join(problems, counted(all, map[string]int{
		"records/authority.json": 4, "hosts/*.json": agents, "fleet/*.json": 2 * agents, "tokens/*.json": 1, "redeemed/*.json": agents,
		"keys/*.key": 4, "certs/ca.crt": 2, "certs/domain.crt": 2,
	}))
	if len(record) != 4 || len(keys) != 4 {
		return len(all), errors.Join(problems, fmt.Errorf("the record was changed %d times and keys %d times, expected 4 and 4", len(record), len(keys)))
	}
	// While a rotation is staged, nothing but HTTP/2 itself has a reason to send.
	problems = errors.Join(problems,
		silent(calls, keys[0], record[0], message{prefix: "TCP:[" + s.grpc + "->", least: leastReport}),
		told(calls, record, message{prefix: "TCP:[" + s.grpc + "->", least: leastWanted}),
		before(keys[:2], record[:1]),  // made, then named
		before(record[2:3], keys[2:]), // forgotten, then destroyed
	)
	return len(all), problems
}

// judgeAgent: what is installed lasts before the report that says so; what is
// trusted lasts before it is installed; and the key that asks for an identity
// lasts before its request leaves.
func (s *site) judgeAgent(i int, calls []call) (int, error) {
	state, problems := changes(calls, s.agentDir(i))
	installed, more := changes(calls, s.certsDir(i))
	all := slices.Concat(state, installed)
	name := func(file string) string { return hostName(i) + "/" + file }
	ca := s.registry + "/ca.crt"
	problems = errors.Join(problems, more, counted(all, map[string]int{
		name("pending.json"): 2, name("identity.json"): 1, name("owned.json"): 1, name("boot.json"): 1, name("trusted.json"): leastTrusted,
		name("status.json"): 1, ca: 3,
	}))
	if problems != nil {
		return len(all), problems
	}
	report := message{prefix: "TCP:[", suffix: "->" + s.grpc + "]", least: leastReport}
	return len(all), errors.Join(problems,
		told(calls, of(installed, ca), report),
		told(calls, of(state, name("pending.json"))[:1], report),
		before(of(state, name("trusted.json"))[:2], of(installed, ca)),
		before(of(state, name("owned.json")), of(installed, ca)), // what leave removes
	)
}

// counted: there are as many changes as a rotation has at least.
func counted(all []change, least map[string]int) (problems error) {
	for pattern, n := range least {
		if got := len(of(all, pattern)); got < n {
			problems = errors.Join(problems, fmt.Errorf("%s was changed %d times, expected at least %d", pattern, got, n))
		}
	}
	return problems
}
