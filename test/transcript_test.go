package test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// transcripts finds the blocks of a page that show commands and what they print.
var transcripts = regexp.MustCompile("(?s)<!-- transcript -->\n```console\n(.*?)```")

// shown is a command of a transcript and what the page says that it prints.
type shown struct{ command, output string }

func shownIn(page string) (all []shown) {
	for _, block := range transcripts.FindAllStringSubmatch(page, -1) {
		for step := range strings.SplitSeq("\n"+block[1], "\n$ ") {
			if command, output, _ := strings.Cut(step, "\n"); command != "" {
				all = append(all, shown{command, strings.TrimSuffix(output, "\n")})
			}
		}
	}
	return all
}

// replacing are the rows of the page's table: a script, and what replaces it.
var replacing = regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \| [^|]*\|$`)

// ours finds the commands in a cell of that table, without what is to be filled in.
var ours = regexp.MustCompile("`(trustcast(?: [a-z][a-z-]*)+)")

// TestComingFromTheScripts runs the transcript of that page: each command must print
// what stands below it, where … is anything. Every command of ours that the page's
// table names must be among them.
func TestComingFromTheScripts(t *testing.T) {
	data, err := os.ReadFile("../docs/how-to/coming-from-the-scripts.md")
	noError(t, err)
	page := string(data)
	all := shownIn(page)
	replaced := uncovered(t, page, all)
	r := newReader(t)
	for _, s := range all {
		if s.output != "" && strings.Trim(s.output, "…\n") == "" {
			t.Errorf("$ %s\nshows nothing of what it prints", s.command)
		}
		if got := r.run("server", s.command); !printed(s.output, got) {
			t.Errorf("$ %s\nprints\n%s\nand the page says\n%s", s.command, got, s.output)
		}
	}
	t.Logf("%d commands ran as the page has them; the table's %d rows are among them", len(all), replaced)
}

// uncovered fails for each row of the table that no command of the transcript shows,
// and returns how many rows there are.
func uncovered(t *testing.T, page string, all []shown) (rows int) {
	t.Helper()
	for _, row := range replacing.FindAllStringSubmatch(page, -1) {
		if row[1] == "the script" || strings.HasPrefix(row[1], "---") {
			continue
		}
		rows++
		commands := ours.FindAllStringSubmatch(row[2], -1)
		if len(commands) == 0 {
			t.Errorf("the table names no command of ours for %s", row[1])
		}
		for _, c := range commands {
			runs := regexp.MustCompile(`\b` + c[1] + `\b`)
			if !slices.ContainsFunc(all, func(s shown) bool { return runs.MatchString(s.command) }) {
				t.Errorf("the table has `%s` for %s, and no transcript runs it", c[1], row[1])
			}
		}
	}
	if rows == 0 {
		t.Error("the page has no table")
	}
	return rows
}

// printed says whether a program printed what a page shows, spaces at the ends of
// lines aside. … is anything; on a line of its own it is any lines, also none.
func printed(want, got string) bool {
	var pattern strings.Builder
	pattern.WriteString(`(?s)\A`)
	for line := range strings.Lines(want + "\n") {
		if line == "…\n" {
			pattern.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		parts := strings.Split(strings.TrimRight(line, " \n"), "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		pattern.WriteString(strings.Join(parts, `.*?`) + `[ ]*(?:\n|\z)`)
	}
	pattern.WriteString(`\z`)
	return regexp.MustCompile(pattern.String()).MatchString(got)
}

func TestPrinted(t *testing.T) {
	for _, c := range []struct {
		want, got string
		is        bool
	}{
		{"ci\n", "ci\n", true},
		{"ci\n", "ci\nann\n", false},
		{"password …\n", "password secret\n", true},
		{"password …\n", "user secret\n", false},
		{"…\n done\n", "a\nb\n done\n", true},
		{"", "an error", false},
		{"", "", true},
		{"…\n done\n", " done\n", true},
		{"a\n…\nz", "a\nz\n", true},
		{"a\n…\nz", "a\nz\nafter\n", false},
		{"a\n…\nz\n…", "a\nb\nz\nafter\n", true},
		{"a", "a  \n", true},
	} {
		if is := printed(c.want, c.got); is != c.is {
			t.Errorf("%q shown for %q: %v", c.want, c.got, is)
		}
	}
}
