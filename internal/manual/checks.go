package manual

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Said are the first groups of what matches pattern in sources, each once; tests are
// passed over. With it a page is held to what the code may say.
func Said(pattern string, sources ...string) ([]string, error) {
	said, re := map[string]bool{}, regexp.MustCompile(pattern)
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, m := range re.FindAllSubmatch(text, -1) {
			said[string(m[1])] = true
		}
	}
	return slices.Sorted(maps.Keys(said)), nil
}

// checkRow is a row of a table of checks, which begins with the check's ID.
var checkRow = regexp.MustCompile("(?m)^\\| `([a-z]+\\.[a-z_]+)` \\|")

// Unlike says where the IDs of checks that are said and those of a page's tables differ;
// "" when they do not.
func Unlike(said []string, page string) string {
	var documented []string
	for _, m := range checkRow.FindAllStringSubmatch(page, -1) {
		documented = append(documented, m[1])
	}
	var b strings.Builder
	for _, id := range said {
		if !slices.Contains(documented, id) {
			fmt.Fprintf(&b, "%s is not on the page\n", id)
		}
	}
	for _, id := range documented {
		if !slices.Contains(said, id) {
			fmt.Fprintf(&b, "the page has %s, which nothing says\n", id)
		}
	}
	return b.String()
}
