package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// flowName is `package.Function` or `package.Type.Method` in docs/FLOW.md.
var flowName = regexp.MustCompile("`([a-z]+)\\.([A-Za-z]+)(?:\\.([A-Za-z]+))?`")

// TestFlowNamesFunctionsThatExist keeps docs/FLOW.md true: each of the seven steps
// names a function, and each named one is there.
func TestFlowNamesFunctionsThatExist(t *testing.T) {
	functions := declared(t, "../agent", "../agent/install", "../server", "../server/authority", "../server/edge", "../server/fleet", "../server/records")
	flow, err := os.ReadFile("../docs/FLOW.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for line := range strings.Lines(string(flow)) {
		if !strings.HasPrefix(line, "| ") || !strings.ContainsAny(line[2:3], "1234567") {
			continue
		}
		steps++
		names := flowName.FindAllStringSubmatch(strings.Split(line, "|")[2], -1)
		if len(names) == 0 {
			t.Errorf("no function is named in: %s", line)
		}
	}
	if steps != 7 {
		t.Errorf("docs/FLOW.md has %d steps, want 7", steps)
	}
	for _, m := range flowName.FindAllStringSubmatch(string(flow), -1) {
		if strings.HasSuffix(m[0], ".go`") || strings.HasSuffix(m[0], ".json`") {
			continue
		}
		name := strings.Trim(m[0], "`")
		if !functions[name] {
			t.Errorf("docs/FLOW.md names %s, which does not exist", name)
		}
	}
}

// TestReadmeSaysWhatWasMeasured holds the README to bench/results.md: each headline of
// the last run stands there as it is.
func TestReadmeSaysWhatWasMeasured(t *testing.T) {
	results, err := os.ReadFile("../bench/results.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	headlines := 0
	top, _, _ := strings.Cut(string(results), "\n## ")
	for line := range strings.Lines(top) {
		if !strings.HasPrefix(line, "- ") {
			continue
		}
		if headlines++; !strings.Contains(string(readme), line) {
			t.Errorf("README.md does not say what bench/results.md says: %s", line)
		}
	}
	if headlines < 4 {
		t.Errorf("bench/results.md has %d headlines, want 4 or more", headlines)
	}
}

// declared lists the functions and methods of packages as package.Type.Method.
func declared(t *testing.T, dirs ...string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no Go files in %s (%v)", dir, err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					all[f.Name.Name+"."+receiver(fn)+fn.Name.Name] = true
				}
			}
		}
	}
	return all
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}
