// Package test holds the tests that look at the program as a whole; the
// directories below are the only code that may import both sides.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/trustcast/trustcast/"

// goPackage is what `go list -json` says about a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Standard,Imports"}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.Bytes())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list %v: %v", args, err)
		}
		packages = append(packages, p)
	}
}

// mayImport says what a package of this module may import from it: "x" is the
// package alone, "x/" all below it.
func mayImport(pkg string) []string {
	side, _, _ := strings.Cut(pkg, "/")
	switch {
	case side == "test", side == "bench":
		return nil // everything
	case pkg == "certs", side == "proto", pkg == "internal/durable", pkg == "internal/foreign", pkg == "internal/gossip", pkg == "internal/memory", pkg == "internal/peer", pkg == "internal/below", pkg == "internal/near", pkg == "internal/printable", pkg == "internal/logging", pkg == "internal/systemd":
		return []string{}
	case pkg == "internal/cli":
		return []string{"internal/near"}
	case pkg == "internal/manual": // imported by tests alone
		return []string{"internal/cli"}
	case pkg == "internal/config":
		return []string{"internal/cli", "internal/near"}
	case pkg == "cmd/trustcast":
		return []string{"server", "proto/", "internal/cli", "internal/config", "internal/durable", "internal/logging", "internal/peer", "internal/printable", "internal/sealed", "internal/systemd"}
	case pkg == "cmd/trustcast-agent":
		return []string{"agent", "internal/cli", "internal/logging", "internal/memory", "internal/systemd"}
	case pkg == "server":
		return []string{"server/", "certs", "internal/", "proto/"}
	case pkg == "agent":
		return []string{"agent/", "certs", "internal/", "proto/"}
	case pkg == "server/records":
		return []string{"internal/durable"}
	case pkg == "server/registry", strings.HasPrefix(pkg, "server/registry/"):
		return []string{"server/records", "server/registry/", "certs", "internal/", "proto/"}
	case side == "server":
		return []string{"server/records", "certs", "internal/", "proto/"}
	case side == "agent":
		return []string{"certs", "internal/", "proto/"}
	}
	return []string{} // a new room: say here what it may import
}

func allowed(imported string, rules []string) bool {
	return rules == nil || slices.ContainsFunc(rules, func(rule string) bool {
		return imported == rule || strings.HasSuffix(rule, "/") && strings.HasPrefix(imported, rule)
	})
}

// only names the one package, or tree, that may import a library.
var only = map[string]string{
	"github.com/hashicorp/memberlist":             "internal/gossip",
	"github.com/coreos/go-systemd/v22":            "internal/systemd",
	"github.com/docker/docker/client":             "server/registry",
	"github.com/distribution/distribution/v3":     "server/registry",
	"github.com/google/renameio/v2":               "internal/durable",
	"github.com/spf13/cobra":                      "cmd/trustcast",
	"github.com/schollz/progressbar/v3":           "cmd/trustcast",
	"filippo.io/age":                              "internal/sealed",
	"github.com/prometheus/client_golang":         "server",
	"github.com/google/go-containerregistry":      "test",
	"github.com/johannesboyne/gofakes3":           "test",
	"github.com/rogpeppe/go-internal/testscript":  "test",
	"golang.org/x/crypto/bcrypt":                  "server",
	"gonum.org/v1/plot":                           "bench",
	"google.golang.org/grpc/test/bufconn":         "test",
	"github.com/distribution/distribution/v3/cmd": "nobody",
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range goList(t, "./...") {
		pkg := strings.TrimPrefix(p.ImportPath, module)
		for _, imported := range p.Imports {
			if inside, ok := strings.CutPrefix(imported, module); ok {
				if !allowed(inside, mayImport(pkg)) {
					t.Errorf("%s imports %s; it may import only %v", pkg, inside, mayImport(pkg))
				}
				continue
			}
			for library, owner := range only {
				if owner == "test" && below(pkg, "bench") {
					continue
				}
				if below(imported, library) && !below(pkg, owner) && pkg != "internal/deps" {
					t.Errorf("%s imports %s; only %s may", pkg, imported, owner)
				}
			}
		}
	}
}

// below says whether path is root or under it.
func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// TestImportsOfAgent: the agent runs on every machine, so it links nothing that
// only the server or an operator needs.
func TestImportsOfAgent(t *testing.T) {
	heavy := []string{
		"github.com/distribution/distribution", "github.com/docker/docker", "github.com/moby/moby",
		"github.com/prometheus", "github.com/spf13/cobra", "github.com/google/go-containerregistry", "go.opentelemetry.io",
		"go.yaml.in/yaml", module + "server", module + "cmd/trustcast", module + "internal/config",
	}
	deps := goList(t, "-deps", "-tags", "grpcnotrace", "./cmd/trustcast-agent")
	if len(deps) < 50 {
		t.Fatalf("go list -deps gave %d packages: it looked at the wrong thing", len(deps))
	}
	for _, p := range deps {
		for _, library := range heavy {
			if below(p.ImportPath, library) {
				t.Errorf("trustcast-agent links %s", p.ImportPath)
			}
		}
	}
}

// notInServer is what makes the registry's own program a third larger than ours, and
// what only tests and benchmarks need.
var notInServer = []string{
	"cloud.google.com/go", "google.golang.org/api", "github.com/Azure", "github.com/aws/aws-sdk-go-v2",
	"github.com/distribution/distribution/v3/registry/storage/driver/azure", "github.com/distribution/distribution/v3/registry/storage/driver/gcs",
	"github.com/docker/cli", "github.com/google/go-containerregistry", "github.com/johannesboyne/gofakes3", "github.com/google/go-cmp",
	"gonum.org", "pgregory.net/rapid", "go.uber.org/goleak", "testing",
}

// TestImportsOfServer is the other direction, and the control that the same
// question can find something.
func TestImportsOfServer(t *testing.T) {
	linked := map[string]bool{}
	for _, p := range goList(t, "-deps", "./cmd/trustcast") {
		linked[p.ImportPath] = true
		if below(p.ImportPath, module+"agent") {
			t.Errorf("trustcast links %s", p.ImportPath)
		}
	}
	for _, library := range notInServer {
		for pkg := range linked {
			if below(pkg, library) {
				t.Errorf("trustcast links %s", pkg)
			}
		}
	}
	if !linked["github.com/distribution/distribution/v3/registry/handlers"] {
		t.Error("trustcast does not link the embedded registry, or the question is wrong")
	}
}

func TestImportsOfCerts(t *testing.T) {
	for _, p := range goList(t, "./certs") {
		for _, imported := range p.Imports {
			if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") && !below(imported, "golang.org/x/crypto") {
				t.Errorf("certs imports %s; it may import only the standard library and x/crypto", imported)
			}
			if slices.Contains([]string{"os", "net/http", "os/exec", "log/slog"}, imported) {
				t.Errorf("certs imports %s; it is pure", imported)
			}
		}
	}
}
