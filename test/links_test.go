package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A page is one Markdown file of the project.
type page struct {
	path string // from the root of the tree
	text string
}

// pages are all Markdown files of the tree that are not somebody else's.
func pages(t *testing.T) (all []page) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || slices.Contains([]string{"node_modules", "testdata", "build", "bin"}, d.Name())) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		all = append(all, page{strings.TrimPrefix(path, "../"), string(text)})
		return err
	})
	noError(t, err)
	if len(all) < 20 {
		t.Fatalf("found %d pages", len(all))
	}
	return all
}

var (
	// fenced is a block of code, which has no links and no headings.
	fenced = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```")
	// link is [text](target), also of a picture.
	link = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	// heading is a line that others may link to.
	heading = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	// unspoken is what a heading's anchor has nothing of.
	unspoken = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// TestLinks follows every link between pages: the file is there, and has the heading.
func TestLinks(t *testing.T) {
	all := pages(t)
	followed := 0
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(p.text, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			followed++
			if why := deadLink(p, m[1]); why != "" {
				t.Errorf("%s links to %s: %s", p.path, m[1], why)
			}
		}
	}
	t.Logf("%d links between %d pages", followed, len(all))
	if followed < 50 {
		t.Errorf("only %d links were found", followed)
	}
}

// deadLink says why a link leads nowhere, or "".
func deadLink(from page, target string) string {
	file, anchor, _ := strings.Cut(target, "#")
	text := from.text
	if file != "" {
		path := filepath.Join("..", filepath.Dir(from.path), file)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return "it does not exist"
		case info.IsDir() || anchor == "":
			return ""
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		text = string(data)
	}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		if anchorOf(m[1]) == anchor {
			return ""
		}
	}
	return "no such heading"
}

// anchorOf is what a page's renderer makes of a heading.
func anchorOf(heading string) string {
	plain := unspoken.ReplaceAllString(strings.ToLower(link.ReplaceAllString(heading, "]")), "")
	return strings.ReplaceAll(strings.TrimSpace(plain), " ", "-")
}

func TestDeadLinks(t *testing.T) {
	from := page{"docs/x.md", "# One heading: `with` code\n```sh\n# no heading\n```\n"}
	for target, dead := range map[string]bool{
		"WORDS.md": false, "nowhere.md": true, "../README.md#install": false, "../README.md#nothing": true,
		"decisions": false, "#one-heading-with-code": false, "#no-heading": true,
	} {
		if why := deadLink(from, target); (why != "") != dead {
			t.Errorf("%s: %q", target, why)
		}
	}
}

// TestEveryPageIsInTheIndex holds docs/README.md to what there is: a page that nobody
// finds is not read.
func TestEveryPageIsInTheIndex(t *testing.T) {
	index, err := os.ReadFile("../docs/README.md")
	noError(t, err)
	for _, p := range pages(t) {
		path, inDocs := strings.CutPrefix(p.path, "docs/")
		if !inDocs || path == "README.md" || strings.HasPrefix(path, "decisions/") {
			continue
		}
		if !strings.Contains(string(index), "]("+path+")") {
			t.Errorf("docs/README.md does not link to %s", path)
		}
	}
}
