package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// worst is the exposure that a unit may have by systemd's own rating, from 0 to 10; a
// unit without any sandbox has 9.6.
var worst = map[string]float64{"trustcast.service": 2.5, "trustcast-agent.service": 3.0}

// TestUnits has systemd read the units, with stand-ins for the programs.
func TestUnits(t *testing.T) {
	need(t, "systemd-analyze")
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(top, "deploy", "systemd", "*.*"))
	must(t, err)
	var units []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		// Only that it is there and executable is looked at.
		units = append(units, filepath.Join(dir, filepath.Base(file)))
		must(t, os.WriteFile(units[len(units)-1], []byte(regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(string(text), "ExecStart=/bin/true")), 0o644))
	}
	if len(units) != 5 {
		t.Fatalf("there are units %v, want two services and three sockets", units)
	}
	if out, err := try(append([]string{"systemd-analyze", "verify", "--man=no"}, units...)...); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// It does find mistakes:
	wrong := filepath.Join(dir, "wrong.service")
	must(t, os.WriteFile(wrong, []byte("[Service]\nExecStart=/bin/true\nProtectSystems=strict\n"), 0o644))
	if out, _ := try("systemd-analyze", "verify", "--man=no", wrong); !strings.Contains(out, "ProtectSystems") {
		t.Errorf("systemd-analyze verify does not name a wrong key: %q", out)
	}
	for unit, bound := range worst {
		rated(t, filepath.Join(dir, unit), bound)
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

func rated(t *testing.T, unit string, bound float64) {
	out := run(t, "systemd-analyze", "security", "--offline=true", "--no-pager", unit)
	m := exposure.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze security says no exposure:\n%s", out)
	}
	level, err := strconv.ParseFloat(m[1], 64)
	must(t, err)
	t.Logf("%s: exposure %.1f, bound %.1f", filepath.Base(unit), level, bound)
	if level > bound {
		t.Errorf("%s is exposed by %.1f, which is more than %.1f:\n%s", unit, level, bound, out)
	}
}

// TestAgentBeforeEngines: what pulls starts after the agent, which waits for no network.
func TestAgentBeforeEngines(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "deploy", "systemd", "trustcast-agent.service"))
	must(t, err)
	unit := settings(string(text))
	for _, engine := range []string{"docker", "containerd", "podman", "crio", "kubelet"} {
		if !strings.Contains(" "+unit["Before"]+" ", " "+engine+".service ") {
			t.Errorf("the agent does not start before %s: Before=%s", engine, unit["Before"])
		}
	}
	for _, waits := range []string{"After", "Requires", "Wants", "Requisite", "BindsTo"} {
		if strings.Contains(unit[waits], "network") {
			t.Errorf("the agent waits for the network: %s=%s", waits, unit[waits])
		}
	}
	if unit["Type"] != "notify" || unit["TimeoutStartSec"] == "" || unit["TimeoutStartSec"] == "infinity" {
		t.Errorf("readiness is Type=%s, bounded by TimeoutStartSec=%s", unit["Type"], unit["TimeoutStartSec"])
	}
}

// settings are a unit's keys, each with its values joined by blanks.
func settings(unit string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(unit) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			all[key] = strings.TrimSpace(all[key] + " " + value)
		}
	}
	return all
}
