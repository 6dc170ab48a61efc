package archive

import (
	"os"
	"strings"
	"testing"
)

// twoStates is a data directory with one state and another staged beside it.
func twoStates(t *testing.T) (tree, *Staging) {
	t.Helper()
	tr := newTree(t)
	for _, root := range Roots {
		if root != "auth" { // is new
			tr.write(root+"/x", "old")
		}
	}
	tr.write("run/socket", "stays")
	s, err := Stage(tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range Roots {
		if root != "certs" { // stays
			tree{t, s.Dir()}.write(root+"/x", "new")
		}
	}
	return tr, s
}

const (
	oldState = "certs=old docker=old state=old"
	newState = "auth=new certs=old docker=new state=new"
)

// judge says which state is there.
func (tr tree) state() string {
	tr.t.Helper()
	files := tr.files()
	if files["run/socket"] == "" {
		tr.t.Error("run/socket is gone")
	}
	var parts []string
	for _, root := range []string{"auth", "certs", "docker", "state"} {
		if content := files[root+"/x"]; content != "" {
			_, data, _ := strings.Cut(content, " ")
			parts = append(parts, root+"="+data)
		}
	}
	if _, err := os.Lstat(tr.path(stagingName)); err == nil {
		parts = append(parts, "and "+stagingName)
	}
	return strings.Join(parts, " ")
}

func TestCommitAndDiscard(t *testing.T) {
	tr, s := twoStates(t)
	if _, err := Stage(tr.dir); err == nil || !strings.Contains(err.Error(), "a restore is at work") {
		t.Errorf("a second restore: %v", err)
	}
	if _, err := Settle(tr.dir); err == nil || !strings.Contains(err.Error(), "a restore is at work") {
		t.Errorf("a server's start: %v", err)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if got := tr.state(); got != newState {
		t.Errorf("committed: %s", got)
	}

	tr, s = twoStates(t)
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if got := tr.state(); got != oldState {
		t.Errorf("discarded: %s", got)
	}
}

// TestCutShort: after any number of the renames, the next look finishes them; before
// the record of the switch, it undoes everything.
func TestCutShort(t *testing.T) {
	renames := [][2]string{
		{"docker", ".restore/old/docker"}, {".restore/new/docker", "docker"}, {".restore/new/auth", "auth"},
		{"state", ".restore/old/state"}, {".restore/new/state", "state"},
	}
	for done := -1; done <= len(renames); done++ {
		tr, s := twoStates(t)
		if done >= 0 {
			tr.write(".restore/switch.json", `{"roots":["docker","auth","state"]}`)
		}
		for _, r := range renames[:max(done, 0)] {
			if err := os.Rename(tr.path(r[0]), tr.path(r[1])); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.lock.Close(); err != nil { // as the kernel does
			t.Fatal(err)
		}
		if Switching(tr.dir) != (done >= 0) {
			t.Errorf("after %d renames: switching is %v", done, Switching(tr.dir))
		}
		finished, err := Settle(tr.dir)
		want := newState
		if done < 0 {
			want = oldState
		}
		if got := tr.state(); err != nil || finished != (done >= 0) || got != want {
			t.Errorf("after %d renames: finished %v, %s (%v)", done, finished, got, err)
		}
	}
}

func TestStageRefusesWhatNoRenameReaches(t *testing.T) {
	tr, s := twoStates(t)
	defer func() { _ = s.Discard() }()
	if err := os.RemoveAll(tr.path("docker")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), tr.path("docker")); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "docker is no directory") {
		t.Errorf("a symlink: %v", err)
	}
}

func TestOccupied(t *testing.T) {
	tr := newTree(t)
	tr.write("lost+found/x", "")
	tr.write("run/x", "")
	s, err := Stage(tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Discard() }()
	if got, err := s.Occupied(); got != "" || err != nil {
		t.Errorf("occupied by %q (%v)", got, err)
	}
	tr.write("letters/x", "")
	if got, err := s.Occupied(); got != "letters" || err != nil {
		t.Errorf("occupied by %q (%v)", got, err)
	}
}

func TestADamagedPlanTouchesNothing(t *testing.T) {
	for _, plan := range []string{`{"roots":["../x"]}`, `{`} {
		tr, s := twoStates(t)
		tr.write(".restore/switch.json", plan)
		if err := s.lock.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Settle(tr.dir); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", plan, err)
		}
		if got := tr.state(); got != oldState+" and "+stagingName {
			t.Errorf("%s: %s", plan, got)
		}
	}
}
