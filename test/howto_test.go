package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestBackupAndRestoreHowTo runs the commands of the page, line by line: one machine
// makes backups, another takes one over.
func TestBackupAndRestoreHowTo(t *testing.T) {
	page, err := os.ReadFile("../docs/how-to/backup-and-restore.md")
	noError(t, err)
	blocks := regexp.MustCompile("(?s)<!-- tested: (server|new) -->\n```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 3 {
		t.Fatalf("the page has %d tested blocks, want 3", len(blocks))
	}
	r := newReader(t)
	r.env["new"] = append([]string{"TRUSTCAST_DATA_DIR=" + filepath.Join(r.dir, "new")}, withoutDataDir(r.env["server"])...)
	const key = "AGE-SECRET-KEY-1SCRFGX0UJXN33HA2ACR2WQADKS5N8X3XAA2H0CWA0GAT23N7Z5GSKH8Y59" // of this test alone
	noError(t, os.WriteFile(filepath.Join(r.dir, "key.txt"), []byte(key), 0o600))
	noError(t, os.WriteFile(filepath.Join(r.dir, "recipients.txt"), []byte("age17tgankl6pzqqwa2fedjqpjdmyqr2j3svmkm5p3yh5zducw0tyylqwh383a"), 0o600))
	r.run("server", "trustcast init --domain registry.example.com --user ci")
	r.run("server", "trustcast server &")
	for _, b := range blocks {
		for line := range strings.Lines(b[2]) {
			if command, _, _ := strings.Cut(line, " #"); strings.TrimSpace(command) != "" {
				r.run(b[1], strings.TrimSpace(command))
			}
		}
	}
	for _, want := range []string{"idle", "registry.example.com:5000"} {
		if out := r.run("new", "trustcast status"); !strings.Contains(out, want) {
			t.Errorf("the restored server says nothing of %s:\n%s", want, out)
		}
	}
}

func withoutDataDir(env []string) (out []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, "TRUSTCAST_DATA_DIR=") {
			out = append(out, v)
		}
	}
	return out
}
