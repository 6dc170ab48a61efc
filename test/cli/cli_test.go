// Package cli_test runs every command of both programs as real processes:
// output, exit codes, error texts. The scripts are in testdata; commands that
// they use beyond testscript's own are in commands_test.go.
package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/trustcast/trustcast/test/images"
)

// programs is the directory of the built programs, sources that of the project.
var programs, sources string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "trustcast-cli-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v0.0.0-test", "-o", dir+string(filepath.Separator), "./cmd/...")
	if sources, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build.Dir = sources
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	programs = dir
	return m.Run()
}

func TestScripts(t *testing.T) {
	t.Cleanup(func() { allConformed(t) })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition: func(name string) (bool, error) {
			is := false
			switch name {
			case "root":
				is = os.Geteuid() == 0
			case "docker": // and root, who finds a volume's content
				is = os.Geteuid() == 0 && exec.Command("docker", "version").Run() == nil
			default:
				return false, fmt.Errorf("no condition is called %s", name)
			}
			if !is && images.Required() {
				return false, fmt.Errorf("where no test may be skipped, %s is missing", name)
			}
			return is, nil
		},
		Cmds: commands(),
	})
}

// endings end a script as passed: testscript's own command, which counts before one
// of the same name here.
var endings = regexp.MustCompile(`(?m)^(\[.*\] *)?stop\b.*`)

// TestScriptsGoToTheirEnd: no script ends before its last line unseen.
func TestScriptsGoToTheirEnd(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %v (%v)", scripts, err)
	}
	for _, script := range scripts {
		archive, err := txtar.ParseFile(script)
		if err != nil {
			t.Fatal(err)
		}
		if ending := endings.Find(archive.Comment); ending != nil {
			t.Errorf("%s: %q ends the script, and what is below never runs", script, ending)
		}
	}
}

// setup gives each script the programs, and a server's flags by environment:
// ports from the kernel, and a fleet that moves fast.
func setup(env *testscript.Env) error {
	for name, value := range map[string]string{
		"PATH":                    programs + string(os.PathListSeparator) + env.Getenv("PATH"),
		"TRUSTCAST_DATA_DIR":      filepath.Join(env.WorkDir, "d"),
		"TRUSTCAST_LISTEN":        "127.0.0.1:0",
		"TRUSTCAST_GRPC_LISTEN":   "127.0.0.1:0",
		"TRUSTCAST_GOSSIP_LISTEN": "127.0.0.1:0",
		"TRUSTCAST_HTTP_LISTEN":   "127.0.0.1:0",
		"TRUSTCAST_TICK":          "1s",
		"TRUSTCAST_GONE_AFTER":    "5s",
	} {
		env.Setenv(name, value)
	}
	env.Values[processesKey{}] = map[string]*process{}
	return nil
}
