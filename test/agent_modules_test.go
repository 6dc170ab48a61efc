package test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the lists in testdata")

// TestModulesOfAgent: what runs on every machine of a fleet grows only when somebody
// says so.
func TestModulesOfAgent(t *testing.T) {
	const list = "testdata/agent_modules.txt"
	modules := agentModules(t)
	if *update {
		if err := os.WriteFile(list, []byte(strings.Join(modules, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Fields(string(raw)), modules); diff != "" {
		t.Errorf("trustcast-agent links other modules than %s lists (-listed +linked):\n%s"+
			"Do without a new one if you can. Else give its reason in docs/decisions/dependencies.md, look at what `make size` says, and run: go test ./test -run TestModulesOfAgent -update", list, diff)
	}
}

// agentModules are those of which trustcast-agent, built as `make build` does, links
// a package.
func agentModules(t *testing.T) []string {
	t.Helper()
	run := func(name string, args ...string) []string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.Bytes())
		}
		return strings.Fields(string(out))
	}
	flags := run("make", "--silent", "--no-print-directory", "agent-flags")
	tags := slices.IndexFunc(flags, func(flag string) bool { return strings.HasPrefix(flag, "-tags=") })
	if tags < 0 {
		t.Fatalf("make agent-flags gives no -tags: %q", flags)
	}
	modules := run("go", "list", "-deps", flags[tags], "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/trustcast-agent")
	slices.Sort(modules)
	return slices.Compact(modules)
}
