package authority

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the expected lines of transcripts")

// TestTranscripts plays testdata/*.txt: lines without indent are events, the
// indented lines below are what follows from them.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := perform(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the play went differently (-want +got); go test ./server/authority -update rewrites it:\n%s", diff)
			}
		})
	}
}

func perform(t *testing.T, script string) string {
	p := newPlay()
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, " "):
			continue // what was expected
		case line == "" || strings.HasPrefix(line, "#"):
			p.out.WriteString(line + "\n")
			continue
		}
		p.out.WriteString(line + "\n")
		if err := p.do(line); err != nil {
			t.Fatal(err)
		}
		if broken := p.invariants(); broken != "" {
			t.Errorf("after %q: %s", line, broken)
		}
	}
	return p.out.String()
}

// invariants returns the first of ROTATION's that does not hold, or "". Those
// that speak of steps are in checkStep. S6 is TestPublishBeforeAnnounce's, and
// that a removed host is sent nothing is test/security's.
func (p *play) invariants() string {
	if p.broken != "" {
		return p.broken
	}
	r := p.rec
	for _, h := range p.hosts {
		covered := r.covers(h.Host) && h.Present && !slices.Contains(r.Skipped, h.ID)
		named := slices.ContainsFunc(r.Waiting(p.view()), func(w Wait) bool { return w.Host == h.Name })
		if h.Removed && (named || h.Covered && !p.wasCovered[h.Name]) {
			return "S8: " + h.Name + " was removed and still counts"
		}
		p.wasCovered[h.Name] = h.Covered
		if !p.lawless && p.serving.Active != 0 && covered && p.now.Before(p.lives[p.serving.Active].Until) && !p.verifies(h.disk, p.serving) {
			return "S1: " + h.Name + " does not verify what is served"
		}
	}
	if p.serving.Active != 0 && !slices.Contains(r.Bundle, p.serving.Active) {
		return "S5: the bundle does not have the issuer of what is served"
	}
	if !slices.Contains(r.Bundle, r.Active) || r.Other != 0 && r.Phase == Idle {
		return "S3: a CA too many or too few"
	}
	return ""
}

// TestRandomPlays plays random events in random orders and checks the
// invariants at every step. A failing play is printed with its events.
func TestRandomPlays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPlay()
		if rapid.Bool().Draw(t, "adopted") {
			_ = p.do("adopted")
		}
		if err := p.do("hosts a b c"); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(20, 80).Draw(t, "length") {
			host := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "host")
			line := rapid.SampledFrom([]string{
				"rotate", "rollback", "skip " + host, "leaf", "ack " + host, "ack " + host, "ack " + host, "ack a b c",
				"report " + host, "unreachable " + host, "refuse " + host, "mend " + host, "gone " + host, "back " + host,
				"break " + host, "tidy " + host, "remove " + host, "crash", "tick 30s", "tick 3m", "tick 15m", "edge stuck", "edge free",
				"replace", "compromise", "tick 2400h", "tick 8600h", "keep", "restore", "servenow", "clock off", "clock right",
			}).Draw(t, "event")
			if err := p.do(line); err != nil {
				t.Fatal(err)
			}
			if broken := p.invariants(); broken != "" {
				t.Fatalf("after %q: %s\n%s", line, broken, p.out.String())
			}
		}
	})
}

// TestLiveness: from wherever random plays end, honest hosts and time bring the
// rotation to idle, or status names who holds it and skipping that one helps.
func TestLiveness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPlay()
		if rapid.Bool().Draw(t, "adopted") {
			_ = p.do("adopted")
		}
		_ = p.do("hosts a b c")
		for _, line := range rapid.SliceOfN(rapid.SampledFrom([]string{
			"rotate", "ack a b c", "ack a", "gone b", "back b", "crash", "refuse c", "mend c", "tick 1m", "tick 15m", "rollback", "skip a", "leaf",
			"replace", "compromise", "tick 8600h", "keep", "restore",
		}), 0, 40).Draw(t, "events") {
			_ = p.do(line)
		}
		_ = p.do("edge free")
		for range 6 {
			_ = p.do("ack a b c")
			_ = p.do("tick 11m")
			_ = p.do("ack a b c")
		}
		if p.rec.Phase == Idle {
			return
		}
		waits := p.rec.Waiting(p.view())
		if len(waits) == 0 {
			t.Fatalf("L2: %s and nobody is named\n%s", p.rec.Phase, p.out.String())
		}
		for _, w := range waits {
			_ = p.do("skip " + w.Host)
		}
		for range 4 {
			_ = p.do("ack a b c")
			_ = p.do("tick 11m")
			for _, w := range p.rec.Waiting(p.view()) {
				_ = p.do("skip " + w.Host)
			}
		}
		if p.rec.Phase != Idle {
			p.show()
			t.Fatalf("L2: skipping did not help\n%s", p.out.String())
		}
	})
}

// TestChainIsBounded: seventeen rotations leave sixteen predecessors.
func TestChainIsBounded(t *testing.T) {
	p := newPlay()
	for range maxLinks + 1 {
		_ = p.do("rotate")
		p.now = p.now.Add(time.Hour)
		p.run()
	}
	if p.rec.Phase != Idle || len(p.rec.Chain) != maxLinks {
		t.Fatalf("%s with %d predecessors, want idle with %d", p.rec.Phase, len(p.rec.Chain), maxLinks)
	}
}
