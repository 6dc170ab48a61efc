package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
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
	r.writeKeys()
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

// writeKeys makes a key for backups, and who may read them.
func (r *reader) writeKeys() {
	r.t.Helper()
	const key = "AGE-SECRET-KEY-1SCRFGX0UJXN33HA2ACR2WQADKS5N8X3XAA2H0CWA0GAT23N7Z5GSKH8Y59" // of these tests alone
	noError(r.t, os.WriteFile(filepath.Join(r.dir, "key.txt"), []byte(key), 0o600))
	noError(r.t, os.WriteFile(filepath.Join(r.dir, "recipients.txt"), []byte("age17tgankl6pzqqwa2fedjqpjdmyqr2j3svmkm5p3yh5zducw0tyylqwh383a"), 0o600))
}

// TestRestoreOnANewMachineHowTo follows the page while a host goes on running: the new
// machine has the address of the old one, and the host comes back by itself.
func TestRestoreOnANewMachineHowTo(t *testing.T) {
	steps := stepsOf(t, "../docs/how-to/restore-on-a-new-machine.md")
	r := newReader(t)
	r.writeKeys()
	r.run("server", "trustcast init --domain registry.example.com --user ci")
	r.run("server", "trustcast server &")
	r.run("server", "trustcast token create -q > token")
	r.run("host", "trustcast-agent join registry.example.com:7443 --token-file token")
	r.run("host", "trustcast-agent run &")
	r.run("server", "trustcast backup --encrypt-to recipients.txt registry.tar.age")
	r.run("server", "trustcast ca rotate --wait --yes") // the backup does not have this CA
	before := r.installed()
	r.stops["server"]()
	r.env["new"] = append([]string{"TRUSTCAST_DATA_DIR=" + filepath.Join(r.dir, "new")}, withoutDataDir(r.env["server"])...)
	r.env["new"] = append(r.env["new"], "TRUSTCAST_GRPC_LISTEN="+r.address)
	for _, s := range steps {
		r.run(s.where, s.line)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out := r.run("new", "trustcast status -o json || test $? = 3")
		if strings.Contains(out, `"state": "trusted"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the host is not back:\n%s", out)
		}
	}
	if after := r.installed(); after == before {
		t.Error("the host still has the CA of after the backup")
	}
	r.run("host", "trustcast-agent status")
}

func withoutDataDir(env []string) (out []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, "TRUSTCAST_DATA_DIR=") {
			out = append(out, v)
		}
	}
	return out
}
