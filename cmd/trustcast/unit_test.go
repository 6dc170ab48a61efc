package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartByUnit: messages say how a server is started on this machine.
func TestStartByUnit(t *testing.T) {
	unit := filepath.Join(t.TempDir(), "trustcast.service")
	defer func(all []string) { unitFiles = all }(unitFiles)
	unitFiles = []string{unit}
	check := func(dir, hint, line, wrong string) {
		t.Helper()
		a := &app{dataDir: dir}
		if got := a.startHint(); got != hint {
			t.Errorf("%s: startHint is %q, want %q", dir, got, hint)
		}
		if got := unreachable(dir, errors.New("refused")).Error(); !strings.Contains(got, "'"+line+"'") {
			t.Errorf("%s: %s", dir, got)
		}
		if got := wrongSocket(dir, "registry.example.com:443"); got != wrong {
			t.Errorf("%s: wrongSocket is %q, want %q", dir, got, wrong)
		}
	}
	check(defaultDataDir, "trustcast server", "trustcast server", "")
	if err := os.WriteFile(unit, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check(defaultDataDir, "systemctl start trustcast", "systemctl start trustcast", "443")
	check("/elsewhere", "trustcast server --data-dir /elsewhere", "trustcast server", "")
	if got := wrongSocket(defaultDataDir, "registry.example.com:5000"); got != "" {
		t.Errorf("the port of the socket is wrong: %q", got)
	}
	if got := unreachable(t.TempDir(), fs.ErrNotExist).Error(); !strings.Contains(got, "trustcast init") {
		t.Errorf("an empty directory: %s", got)
	}
}
