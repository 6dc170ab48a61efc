package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/internal/manual"
)

// TestChecksAreDocumented: each ID that the server's doctor may say is in the reference,
// and no other.
func TestChecksAreDocumented(t *testing.T) {
	const root = "../../"
	sources, err := filepath.Glob(root + "server/doctor*.go")
	if err != nil {
		t.Fatal(err)
	}
	said, err := manual.Said(`"((?:server|state|disk|ports|engine|rotation|hosts|clock|users)\.[a-z]+)"`, sources...)
	if err != nil {
		t.Fatal(err)
	}
	held, err := manual.Said(`What: "([a-z_]+)"`, root+"server/authority/held.go", root+"server/identity/held.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range held {
		said = append(said, "certificate."+what)
	}
	page, err := os.ReadFile(root + "docs/reference/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## On the server")
	if !ok {
		t.Fatal("the reference has no section for the server any more")
	}
	if unlike := manual.Unlike(said, section); unlike != "" {
		t.Errorf("docs/reference/doctor.md:\n%s", unlike)
	}
	if len(said) < 25 {
		t.Errorf("only %d IDs found: the question is wrong", len(said))
	}
}
