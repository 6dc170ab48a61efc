package test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// transcripts finds the blocks of a page that show commands and what they print.
var transcripts = regexp.MustCompile("(?s)<!-- transcript -->\n```console\n(.*?)```")

// TestComingFromTheScripts runs the transcript of that page: each command must print
// what stands below it, where … is anything.
func TestComingFromTheScripts(t *testing.T) {
	page, err := os.ReadFile("../docs/how-to/coming-from-the-scripts.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := transcripts.FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 6 {
		t.Fatalf("the page has %d transcripts", len(blocks))
	}
	r := newReader(t)
	commands := 0
	for _, b := range blocks {
		for shown := range strings.SplitSeq(b[1], "$ ") {
			command, want, _ := strings.Cut(shown, "\n")
			if command == "" {
				continue
			}
			commands++
			got := r.run("server", command)
			if !printed(want, got) {
				t.Errorf("$ %s\nprints\n%s\nand the page says\n%s", command, got, want)
			}
		}
	}
	// Every command of ours that the table names is shown, but for those that
	// have their own page.
	for _, name := range []string{"init", "server", "registry start", "registry stop", "registry pause", "registry unpause", "registry restart", "user add", "user rm", "user export", "ca export", "ca rotate", "backup", "restore"} {
		if !strings.Contains(string(page), "`trustcast "+name) || !strings.Contains(transcriptText(blocks), "trustcast "+name) {
			t.Errorf("the page does not show %s", name)
		}
	}
	t.Logf("%d commands ran as the page has them", commands)
}

func transcriptText(blocks [][]string) string {
	var all strings.Builder
	for _, b := range blocks {
		all.WriteString(b[1])
	}
	return all.String()
}

// printed says whether a program printed what a page shows, spaces at the ends of
// lines aside. … is anything, also lines.
func printed(want, got string) bool {
	var pattern strings.Builder
	pattern.WriteString(`(?s)\A`)
	for part := range strings.SplitAfterSeq(want, "…") {
		text, any := strings.CutSuffix(part, "…")
		pattern.WriteString(regexp.QuoteMeta(text))
		if any {
			pattern.WriteString(`.*?`)
		}
	}
	pattern.WriteString(`\s*\z`)
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
	} {
		if is := printed(c.want, c.got); is != c.is {
			t.Errorf("%q shown for %q: %v", c.want, c.got, is)
		}
	}
}
