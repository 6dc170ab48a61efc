package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block finds what a page has to be run, and where.
var block = regexp.MustCompile("(?s)<!-- tested: ([a-z0-9-]+) -->\n```sh\n(.*?)```")

// step is a line of a page, and the machine that runs it.
type step struct{ where, line string }

// stepsOf returns the lines of a page that are to be run, without their remarks.
func stepsOf(t *testing.T, path string) (all []step) {
	t.Helper()
	text, err := os.ReadFile(path)
	noError(t, err)
	for _, b := range block.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(b[2]) {
			if command, _, _ := strings.Cut(line, " #"); strings.TrimSpace(command) != "" {
				all = append(all, step{b[1], strings.TrimSpace(command)})
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no tested blocks", path)
	}
	return all
}

// TestStolenKeyHowTo loses a token, a password, a host, the registry CA's key and at
// last the state directory, and does each time what the page says.
func TestStolenKeyHowTo(t *testing.T) {
	steps := stepsOf(t, "../docs/how-to/stolen-key.md")
	r := newReader(t)
	r.env["host"] = append(r.env["host"], "TRUSTCAST_NAME=web-1")
	r.env["new"] = append([]string{"TRUSTCAST_DATA_DIR=" + filepath.Join(r.dir, "new")}, withoutDataDir(r.env["server"])...)
	r.run("server", "trustcast init --domain registry.example.com --user ci")
	r.run("server", "trustcast server &")
	token := r.run("server", "trustcast token create -q | tee token")
	id := strings.Split(token, ".")[1]
	r.run("host", "trustcast-agent join registry.example.com:7443 --token-file token")
	places := strings.NewReplacer("/var/lib/trustcast", filepath.Join(r.dir, "new"), "/root/stolen", filepath.Join(r.dir, "stolen"), "4f9c0d1e2a3b", id)
	before, moved := r.installed(), false
	for _, s := range steps {
		if s.where == "new" && !moved {
			// The machine that is clean again has what the old one had.
			moved = true
			r.run("server", "cp -a server new")
		}
		r.run(s.where, places.Replace(s.line))
		if strings.HasPrefix(s.line, "trustcast-agent leave") && r.installed() != "" {
			t.Error("after leaving, the host still trusts the stolen CA")
		}
	}
	if after := r.installed(); after == "" || after == before {
		t.Errorf("at the end the host trusts %q, before the theft it was %q", after, before)
	}
	if out := r.run("new", "trustcast status -o json || test $? = 3"); !strings.Contains(out, `"web-1"`) {
		t.Errorf("the new fleet does not have the host:\n%s", out)
	}
}

// installed is the CA that the reader's host has, or "".
func (r *reader) installed() string {
	data, err := os.ReadFile(filepath.Join(r.dir, "certs.d", "registry.example.com:5000", "ca.crt"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return string(data)
}
