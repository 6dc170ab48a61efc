package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/server/archive"
	"github.com/trustcast/trustcast/server/records"
)

// destroying is a data directory whose server is just destroying the keys that its
// newer records have forgotten: the first is overwritten and still there.
func destroying(t *testing.T) (l layout, older, newer records.Snapshot) {
	t.Helper()
	l = layout{t.TempDir()}
	var snapshots [2]records.Snapshot
	for i, dir := range []string{l.dir, t.TempDir()} { // the second has the newer records
		if _, err := Init(t.Context(), InitConfig{DataDir: dir, Domain: "registry.example.com"}); err != nil {
			t.Fatal(err)
		}
		store, err := records.Open(layout{dir}.records())
		if err != nil {
			t.Fatal(err)
		}
		snapshots[i] = store.Snapshot()
		if dir == l.dir {
			continue
		}
		if err := os.CopyFS(l.keys(), os.DirFS(layout{dir}.keys())); err != nil {
			t.Fatal(err)
		}
	}
	c, err := describe(snapshots[0])
	if err != nil {
		t.Fatal(err)
	}
	overwritten := filepath.Join(l.keys(), string(c.registry.Keys[0])+".key")
	info, err := os.Stat(overwritten)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overwritten, make([]byte, info.Size()), 0o600); err != nil {
		t.Fatal(err)
	}
	return l, snapshots[0], snapshots[1]
}

// inTurn answers with the older records once, then with the newer ones.
func inTurn(older, newer records.Snapshot) func() records.Snapshot {
	asked := 0
	return func() records.Snapshot {
		if asked++; asked == 1 {
			return older
		}
		return newer
	}
}

// TestBackupDuringDestroy: a key that is overwritten is in no backup; newer records
// name others.
func TestBackupDuringDestroy(t *testing.T) {
	l, older, newer := destroying(t)
	c, err := l.copyState(inTurn(older, newer))
	if err != nil {
		t.Fatal(err)
	}
	want, err := describe(newer)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range slices.Concat(want.registry.Keys, want.fleet.Keys) {
		name := "state/keys/" + string(id) + ".key"
		if !slices.ContainsFunc(c.files, func(f archive.File) bool { return f.Path == name && strings.Contains(string(f.Data), "PRIVATE KEY") }) {
			t.Errorf("%s is not in the copy", name)
		}
	}
	if _, err := l.copyState(func() records.Snapshot { return older }); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a key that stays damaged: %v", err)
	}
}

// TestDoctorDuringDestroy: a key that the records forget meanwhile is no failure; one
// that they go on naming is.
func TestDoctorDuringDestroy(t *testing.T) {
	l, older, newer := destroying(t)
	changing := inTurn(older, newer)
	for what, read := range map[string]func() records.Snapshot{
		"": changing, "is damaged": func() records.Snapshot { return older },
	} {
		f, keys := &findings{}, records.ReadKeys(l.keys())
		_, held, ok := examineRecords(func() (records.Snapshot, error) { return read(), nil }, keys, f)
		if !ok {
			t.Fatalf("%v", f.checks)
		}
		examineKeys(keys, held, f)
		var said string
		for _, c := range f.checks {
			if c.GetId() == "state.keys" && c.GetState() == checkFail {
				said += c.GetText()
			}
		}
		if !strings.Contains(said, what) || (said == "") != (what == "") {
			t.Errorf("want %q, and it says %q", what, said)
		}
	}
}
