package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crash says where a program kills itself; the zero value is nowhere.
type crash struct {
	// at is the name or number of a point; log takes the points passed.
	at, log string
}

func (c crash) env() []string {
	var env []string
	if c.at != "" {
		env = append(env, "TRUSTCAST_CRASH_AT="+c.at)
	}
	if c.log != "" {
		env = append(env, "TRUSTCAST_CRASH_LOG="+c.log)
	}
	return env
}

// passed lists the points that the log names, in order.
func (c crash) passed() []string {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return nil // none yet
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) == 3 && strings.HasSuffix(line, "\n") {
			points = append(points, words[1])
		}
	}
	return points
}

// struck says whether the program has ended by its own hand at its point.
func (c crash) struck(p *process) error {
	passed := c.passed()
	switch {
	case !p.killed():
		return fmt.Errorf("%s did not end by SIGKILL but with %v", p.name, p.cmd.ProcessState)
	case len(passed) == 0 || passed[len(passed)-1] != c.at && strconv.Itoa(len(passed)) != c.at:
		return fmt.Errorf("%s was killed, but not at %s; it passed %v", p.name, c.at, passed)
	}
	return nil
}

const (
	// calm is for how many looks no point must have come to call a program quiet: a
	// fifth of a second, against the millisecond that a write takes. A wrong guess
	// costs a repetition.
	calm = 40
	// forGood is calm where a wrong guess costs the test, since nobody would start what
	// crashes later: longer than the second after which an agent shows what is new.
	forGood = 500
)

// quiet waits until the program has nothing more to write, or has ended: until so many
// looks saw nothing new.
func (c crash) quiet(p *process, looks int) error {
	same, last := 0, -1
	return until(p.name+" is quiet", func() (bool, string) {
		n := len(c.passed())
		if same++; n != last {
			same, last = 0, n
		}
		return same > looks || p.ended(), fmt.Sprint(n, " points")
	})
}

// attempts at a point that did not come again: writes of derived copies that
// follow each other quickly may be joined to one.
const attempts = 4

// series is one scenario with a crash at each point that a first run found.
type series struct {
	// least is the number of points below which the first run is suspicious.
	least int
	// sampled: but for a proof, only some points are struck.
	sampled bool
	// find runs the scenario without a crash and returns its points.
	find func(t *testing.T, log string) []string
	// strike runs it with a crash; reached is false when the point did not
	// come.
	strike func(t *testing.T, c crash) (reached bool)
}

// run runs the series, a few scenarios at a time (-parallel).
func (s series) run(t *testing.T) {
	began := time.Now()
	points, steps := s.points(t)
	if steps < s.least {
		t.Fatalf("only %d points of steps were found, expected at least %d: %v", steps, s.least, points)
	}
	var ran, crashes, missed atomic.Int64
	var joined sync.Map // the writes of which points did not come again
	t.Cleanup(func() {
		t.Logf("%s: %d points, %d of them of steps, %d scenarios, %d crashes, %d times a point did not come, %s", t.Name(), len(points), steps, ran.Load(), crashes.Load(), missed.Load(), time.Since(began).Round(time.Millisecond))
		var writes []string
		joined.Range(func(write, _ any) bool { writes = append(writes, write.(string)); return true })
		if len(writes) > max(1, steps/perWrite/joinable) {
			t.Errorf("of %d writes these did not come again, more than are joined to one: %v", steps/perWrite, writes)
		}
	})
	for _, at := range s.sample(t, points) {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			ran.Add(1)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("repeat: TRUSTCAST_PROVE=1 go test ./test/crash -count=1 -v -run '^%s$'", strings.ReplaceAll(t.Name(), "/", "$/^"))
				}
			})
			for range attempts {
				if s.strike(t, crash{at: at, log: filepath.Join(scratch(t), "points")}) {
					crashes.Add(1)
					return
				}
				missed.Add(1)
			}
			switch {
			case delayed.MatchString(at):
				t.Logf("the point did not come again in %d runs, and need not", attempts)
			case newest.MatchString(at):
				joined.Store(newest.FindString(at), true)
			default:
				t.Errorf("the point did not come again in %d runs", attempts)
			}
		})
	}
}

// sampling is how many points of a sampled series are struck: with a second each,
// what else may happen takes a minute.
const sampling = 4

// sample returns the points to strike: all, or some, one by chance of each part of
// the way.
func (s series) sample(t *testing.T, points []string) []string {
	if !s.sampled || os.Getenv("TRUSTCAST_PROVE") != "" || len(points) <= sampling {
		return points
	}
	var some []string
	for i := range sampling {
		from, to := i*len(points)/sampling, (i+1)*len(points)/sampling
		some = append(some, points[from+rand.IntN(to-from)])
	}
	t.Logf("%s: of %d points these are struck, all with TRUSTCAST_PROVE=1: %v", t.Name(), len(points), some)
	return some
}

// newest are the files that hold the newest state and no steps: the copies that a
// server makes of its record, and what an agent has last been told. Of changes
// that follow each other quickly only the last may be written, so that the write
// with the highest number need not come.
var newest = regexp.MustCompile(`^(ca\.crt|domain\.crt|trusted\.json)-\d+-`)

const (
	// perWrite are the points of a write: before it, before the rename and after it.
	perWrite = 3
	// joinable is the part of the writes of steps, one in so many but at least one, that
	// may not have come for that reason.
	joinable = 10
)

// delayed is the file that an agent writes a second after what it shows: the more
// changes fall into that second, the fewer writes there are, and the last may come
// after the end. They are struck when they come.
var delayed = regexp.MustCompile(`^status\.json-`)

// points are those of two runs, since what came only once is a matter of chance; steps
// counts those that are not of delayed writes.
func (s series) points(t *testing.T) (both []string, steps int) {
	first := s.find(t, filepath.Join(scratch(t), "points"))
	second := s.find(t, filepath.Join(scratch(t), "points"))
	var once []string
	for _, p := range first {
		if !slices.Contains(second, p) {
			once = append(once, p)
			continue
		}
		both = append(both, p)
		if !delayed.MatchString(p) {
			steps++
		}
	}
	if len(once) > 0 {
		t.Logf("%s: not in each run: %v", t.Name(), once)
	}
	return both, steps
}
