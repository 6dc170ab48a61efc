package explore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// parse reads the line of an event.
func (w *world) parse(line string) (event, error) {
	f := strings.Fields(line)
	for i, k := range kinds {
		if k.line != f[0] || k.perHost != (len(f) == 2) {
			continue
		}
		if !k.perHost {
			return event{kind: uint8(i)}, nil //nolint:gosec // a few dozen
		}
		if h := slices.IndexFunc(w.hosts[:], func(h host) bool { return h.name == f[1] }); h >= 0 {
			return event{uint8(i), uint8(h)}, nil //nolint:gosec // a few dozen, three hosts
		}
	}
	return event{}, fmt.Errorf("no such event: %q", line)
}

// replay plays a transcript and returns the first promise that breaks, and where.
func replay(s scope, c code, script string) (broken string, err error) {
	m := &machine{scope: s, code: c}
	own := newCoder(s.exact)
	w := s.start()
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == ' ' || line[0] == '#' || strings.HasPrefix(line, "scope ") {
			continue
		}
		e, err := w.parse(line)
		if err != nil {
			return "", err
		}
		m.at(&w)
		after, ok := m.apply(e)
		if !ok {
			return "", fmt.Errorf("%q: nothing happens", line)
		}
		next := *after
		if broken = m.change(&w, &next); broken == "" {
			broken = m.judge(&next, newKeys(), &own)
		}
		if broken != "" {
			return fmt.Sprintf("after %q: %s", line, broken), nil
		}
		w = next
	}
	return "", nil
}

// scopeOf reads the scope of a transcript; in it nothing is bounded.
func scopeOf(script string) (scope, error) {
	s := scope{name: "transcript", hosts: 1}
	for i := range s.budget.all() {
		*s.budget.all()[i] = 255
	}
	for line := range strings.Lines(script) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "scope" {
			continue
		}
		line, s.adopted = strings.CutSuffix(strings.TrimSpace(line), adoptedSuffix)
		if _, err := fmt.Sscanf(line, "scope hosts %d down %d up %d whole %t fresh %t exact %t", &s.hosts, &s.down, &s.up, &s.whole, &s.fresh, &s.exact); err != nil {
			return s, fmt.Errorf("%q: %w", line, err)
		}
	}
	return s, nil
}

const adoptedSuffix = " adopted"

// line is a scope as transcripts begin.
func (s scope) line() string {
	line := fmt.Sprintf("scope hosts %d down %d up %d whole %t fresh %t exact %t", s.hosts, s.down, s.up, s.whole, s.fresh, s.exact)
	if s.adopted {
		line += adoptedSuffix
	}
	return line
}

// TestReplay plays testdata/*.txt: ways that once broke a promise, or that look
// as if they might.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := scopeOf(string(script))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		broken, err := replay(s, realCode(), string(script))
		if err != nil || broken != "" {
			t.Errorf("%s: %s %v", file, broken, err)
		}
	}
}
