package mutants

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// prove says that all run, and slow tests too.
var prove = os.Getenv("TRUSTCAST_PROVE") != ""

// sampling: otherwise each sixth runs. All of them take as long as everything else that
// `make test` runs.
const sampling = 6

// sample are the mutants to run.
func sample(all []mutant) []mutant {
	if prove {
		return all
	}
	var some []mutant
	for i, m := range slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return m.prove }) {
		if i%sampling == 0 {
			some = append(some, m)
		}
	}
	return some
}

// TestMutants: every mutant is caught by the tests that it names.
func TestMutants(t *testing.T) {
	all := load(t)
	some := sample(all)
	var caught atomic.Int32
	var cpu atomic.Int64
	start := time.Now()
	t.Run("each", func(t *testing.T) {
		for _, m := range some {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				took, used, err := m.run(t.Context(), t.TempDir())
				cpu.Add(int64(used))
				if err != nil {
					t.Fatalf("%s\n%v", m.promise, err)
				}
				caught.Add(1)
				t.Logf("%-32s caught by %s in %.1f s", m.name, names(m.tests), took.Seconds())
			})
		}
	})
	t.Logf("%d of %d mutants caught in %.0f s (%.0f s of processor time); %d more with TRUSTCAST_PROVE",
		caught.Load(), len(some), time.Since(start).Seconds(), time.Duration(cpu.Load()).Seconds(), len(all)-len(some))
}

// TestMutantsApply also to those that only a slow test catches: code that moved is
// noticed at once.
func TestMutantsApply(t *testing.T) {
	for _, m := range load(t) {
		if _, err := m.overlay(t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestWithoutMutants is the control: the same tests pass when nothing is broken.
func TestWithoutMutants(t *testing.T) {
	wanted := map[string][]string{}
	for _, m := range sample(load(t)) {
		for _, test := range m.tests {
			if !slices.Contains(wanted[test.pkg], test.name) {
				wanted[test.pkg] = append(wanted[test.pkg], test.name)
			}
		}
	}
	for pkg, tests := range wanted {
		t.Run(strings.TrimPrefix(pkg, "./"), func(t *testing.T) {
			t.Parallel()
			var tops []string
			for _, name := range tests {
				top, _, _ := strings.Cut(name, "/")
				tops = append(tops, top)
			}
			r, err := goTest(t.Context(), "", pkg, "^("+strings.Join(tops, "|")+")$")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range tests {
				if !r.passed[name] {
					t.Errorf("%s does not pass on its own:\n%s", name, r.output)
				}
			}
		})
	}
}

// TestRunnerTellsWhy: what is not caught is not called caught, and why is said.
func TestRunnerTellsWhy(t *testing.T) {
	on := func(find, replace, tests string) string {
		return "# control\nfile: certs/evidence.go\nfind: " + find + "\nreplace: " + replace + "\ntests: ./certs " + tests + "\n"
	}
	const newer = "e.Boot == old.Boot && e.Sequence > old.Sequence"
	for _, c := range []struct{ what, text, says string }{
		{"caught", on(newer, "e.Boot == old.Boot && e.Sequence < old.Sequence", "TestEvidenceOrder"), ""},
		{"harmless", on(newer, "old.Boot == e.Boot && e.Sequence > old.Sequence", "TestEvidenceOrder"), "it survives"},
		{"broken Go", on(newer, "e.Boot ==", "TestEvidenceOrder"), "it does not compile"},
		{"another type", on(newer, `"yes"`, "TestEvidenceOrder"), "it does not compile"},
		{"no such test", on(newer, "false", "TestNothing"), "did not run"},
		{"no such text", on("if Paris is in Texas", "", "TestEvidenceOrder"), "no longer applies"},
		{"twice that text", on("old.Boot", "0", "TestEvidenceOrder"), "no longer applies"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			m, err := parse(c.what, c.text)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = m.run(t.Context(), t.TempDir())
			switch {
			case c.says == "" && err != nil:
				t.Errorf("not caught: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// load reads all mutants, and looks at every source file: the go command keeps a
// test's result only while what the test looked at is unchanged, and cannot see
// what its subprocesses read.
func load(t *testing.T) []mutant {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); path != root && strings.HasPrefix(name, ".") || name == "bin" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := readMutants()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("there are no mutants in testdata")
	}
	return all
}

func names(tests []test) string {
	var all []string
	for _, t := range tests {
		all = append(all, t.pkg+" "+t.name)
	}
	return strings.Join(all, ", ")
}
