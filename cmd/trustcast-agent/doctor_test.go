package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/agent/doctor"
	"github.com/trustcast/trustcast/internal/manual"
)

// TestDiagnosisJSON: scripts rely on these keys.
func TestDiagnosisJSON(t *testing.T) {
	d := agent.Diagnosis{Registry: "registry.test:5000", Checks: []doctor.Check{
		{ID: "files.folder", State: doctor.Fail, Subject: "/x.crt", Text: "is a directory", Fix: "mv <it> & go"},
	}}
	const want = `{
  "verdict": "fail",
  "registries": [
    "registry.test:5000"
  ],
  "mended": [],
  "checks": [
    {
      "registry": "registry.test:5000",
      "id": "files.folder",
      "state": "fail",
      "subject": "/x.crt",
      "text": "is a directory",
      "fix": "mv <it> & go"
    }
  ]
}
`
	var out bytes.Buffer
	if err := writeDiagnoses(&out, []agent.Diagnosis{d}); err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	if err := writeDiagnoses(&out, []agent.Diagnosis{{}}); err != nil || strings.Contains(out.String(), "null") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestChecksAreDocumented: each ID that the doctor may say is in the reference, and no
// other, and is printed under a heading.
func TestChecksAreDocumented(t *testing.T) {
	sources, err := filepath.Glob("../../agent/doctor/*.go")
	if err != nil {
		t.Fatal(err)
	}
	said, err := manual.Said(`"((?:host|network|engine|files|trust|restart)\.[a-z]+)"`, append(sources, "../../agent/doctor.go")...)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/reference/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	section, _, ok := strings.Cut(string(page), "\n## On the server")
	if !ok {
		t.Fatal("the reference has no section for the server any more")
	}
	if unlike := manual.Unlike(said, section); unlike != "" {
		t.Errorf("docs/reference/doctor.md:\n%s", unlike)
	}
	if len(said) < 20 {
		t.Errorf("only %d IDs found: the question is wrong", len(said))
	}
}
