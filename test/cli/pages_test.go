package cli_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trustcast/trustcast/internal/manual"
)

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestExitCodesOfPage: docs/reference/exit-codes.md has the codes that help and man pages
// have, and exitcodes.txtar runs each of its cases.
func TestExitCodesOfPage(t *testing.T) {
	text := readPage(t, "exit-codes.md")
	for _, e := range manual.ExitCodes {
		if !strings.Contains(text, "| "+e.Term+" | "+e.Meaning+" |\n") {
			t.Errorf("the page does not have code %s as the man pages do: %s", e.Term, e.Meaning)
		}
	}
	script, err := os.ReadFile(filepath.Join("testdata", "exitcodes.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([0-9]) \\|").FindAllStringSubmatch(text, -1) {
		seen[m[2]] = true
		run := regexp.MustCompile(`(?m)^code ` + m[2] + ` ` + regexp.QuoteMeta(m[1]) + `( --docker-certs-dir \S+)?$`)
		if !run.Match(script) {
			t.Errorf("no test runs the case %q, which is to end with %s", m[1], m[2])
		}
	}
	if len(seen) != len(manual.ExitCodes) {
		t.Errorf("the page has cases of %d codes, want %d", len(seen), len(manual.ExitCodes))
	}
}

// fileRow is a row of docs/reference/files.md.
var fileRow = regexp.MustCompile("(?m)^\\| `([^`…]+)` \\| (0[0-7]{3}) \\| ([^|]+) \\|")

// files SECTION DIR WHEN...: waits until below DIR is what that section of
// docs/reference/files.md says, with these modes, all that is there at these times, and
// nothing else: a file that is just being written has another name.
func files(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: files SECTION DIR WHEN...")
	}
	page, err := os.ReadFile(filepath.Join(sources, "docs", "reference", "files.md"))
	ts.Check(err)
	_, section, found := strings.Cut(string(page), "\n## "+args[0]+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := fileRow.FindAllStringSubmatch(section, -1)
	if !found || len(rows) == 0 {
		ts.Fatalf("docs/reference/files.md has no section %q with files", args[0])
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		err := compareFiles(ts.MkAbs(args[1]), rows, args[2:])
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v", err)
		}
	}
}

func compareFiles(dir string, rows [][]string, when []string) error {
	missing := map[string]bool{}
	for _, row := range rows {
		if slices.Contains(when, row[3]) {
			missing[row[1]] = true
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		return foundFile(name, d, rows, missing)
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("docs/reference/files.md has what is not there: %v", missing)
	}
	return err
}

// TestCompareFiles: what is too much, too little, or of another mode is noticed.
func TestCompareFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b1.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	row := func(path, mode string) []string { return []string{"", path, mode, "always"} }
	for _, c := range []struct {
		rows [][]string
		ok   bool
	}{
		{[][]string{row("a", "0600"), row("HASH.key", "0600")}, true},
		{[][]string{row("a", "0600")}, false},
		{[][]string{row("a", "0644"), row("HASH.key", "0600")}, false},
		{[][]string{row("a", "0600"), row("HASH.key", "0600"), row("c", "0600")}, false},
	} {
		if err := compareFiles(dir, c.rows, []string{"always"}); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.rows, err)
		}
	}
}

func foundFile(name string, d fs.DirEntry, rows [][]string, missing map[string]bool) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !placeholder(row[1]).MatchString(name) {
			continue
		}
		if mode := fmt.Sprintf("%04o", info.Mode().Perm()); mode != row[2] {
			return fmt.Errorf("%s has mode %s, and docs/reference/files.md says %s", name, mode, row[2])
		}
		delete(missing, row[1])
		return nil
	}
	return fmt.Errorf("%s is not in docs/reference/files.md", name)
}

// placeholder compiles a path of the page: words in capitals are anything.
func placeholder(path string) *regexp.Regexp {
	pattern := regexp.MustCompile(`[A-Z]{2,}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`)
	return regexp.MustCompile("^" + pattern + "$")
}

// ports NAME: what the server's log says that it listens on is in docs/reference/ports.md,
// and the other way round.
func portsCheck(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args, "ports NAME", 1)
	page, err := os.ReadFile(filepath.Join(sources, "docs", "reference", "ports.md"))
	ts.Check(err)
	var said, listed []string
	for _, m := range listenLine.FindAllStringSubmatch(ts.ReadFile(p.log), -1) {
		said = append(said, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| \\d+ \\| [^|]+ \\| `--[a-z-]+` \\| `([a-z]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(said)
	slices.Sort(listed)
	if neg || !slices.Equal(said, listed) {
		ts.Fatalf("the server listens for %v, docs/reference/ports.md has %v", said, listed)
	}
}

// TestPortsOfPage: the page's ports are the defaults of the flags that it names.
func TestPortsOfPage(t *testing.T) {
	settings := readPage(t, "configuration.md")
	rows := regexp.MustCompile("(?m)^\\| (\\d+) \\| [^|]+ \\| `--([a-z-]+)` ").FindAllStringSubmatch(readPage(t, "ports.md"), -1)
	if len(rows) != 4 {
		t.Fatalf("the page has %d ports, want 4", len(rows))
	}
	for _, row := range rows {
		fallback := row[2] == "listen" && strings.Contains(settings, "the port is "+row[1]+" by default")
		if !fallback && !regexp.MustCompile("\\| `"+row[2]+"` \\| `[^`]*:"+row[1]+"` ").MatchString(settings) {
			t.Errorf("--%s does not have the port %s by default", row[2], row[1])
		}
	}
}
