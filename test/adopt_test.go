package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/internal/plain"
)

// TestAdoptHowTo runs the commands of docs/how-to/adopt-a-registry.md as they stand,
// on a plain registry's data.
func TestAdoptHowTo(t *testing.T) {
	page, err := os.ReadFile("../docs/how-to/adopt-a-registry.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := tested.FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 5 {
		t.Fatalf("the page has %d tested blocks, want 5", len(blocks))
	}
	r := newReader(t)
	old := filepath.Join(r.dir, "registry")
	pair, err := plain.SelfSigned(plain.Options{}, "registry.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.Write(old, pair, "ci:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n", "team/app"); err != nil {
		t.Fatal(err)
	}
	r.env["server"] = append(r.env["server"], "TRUSTCAST_DEADLINE=1s")
	var outputs []string
	for _, b := range blocks {
		for line := range strings.Lines(b[2]) {
			if command, _, _ := strings.Cut(line, " #"); strings.TrimSpace(command) != "" {
				outputs = append(outputs, r.run(b[1], strings.ReplaceAll(strings.TrimSpace(command), "/srv/registry", old)))
			}
		}
	}
	all := strings.Join(outputs, "")
	for _, want := range []string{"Hosts need nothing", "generation  0", "rotation 1 is done: generation 2"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q in:\n%s", want, all)
		}
	}
	if out := r.run("host", "trustcast-agent status"); !strings.Contains(out, "generation      2") {
		t.Errorf("after the rotation the host says:\n%s", out)
	}
}
