package agent

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/trustcast/trustcast/agent/doctor"
)

// TestDoctorWithoutRoot: a user who may not look at the agent's files is told so once,
// and what is no secret is looked at.
func TestDoctorWithoutRoot(t *testing.T) {
	const dirOfRoot = "TRUSTCAST_TEST_DIR_OF_ROOT"
	dir := os.Getenv(dirOfRoot)
	if dir == "" {
		dir = t.TempDir()
		if err := os.Chmod(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		again := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$") //nolint:gosec // this test, as nobody
		again.Env, again.Dir = append(os.Environ(), dirOfRoot+"="+dir), "/"
		again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	cfg := Config{DataDir: dir, DockerCertsDir: dir, GossipListen: off}
	for domain, groups := range map[string][]string{"": {"host"}, "localhost:1": {"host", "network", "files"}} {
		all, err := Doctor(t.Context(), cfg, domain, false)
		if err != nil || len(all) != 1 {
			t.Fatalf("%q: %v (%v)", domain, all, err)
		}
		unseen, seen := 0, map[string]bool{}
		for _, c := range all[0].Checks {
			group, _, _ := strings.Cut(c.ID, ".")
			if seen[group] = true; c.ID == "host.joined" && c.State == doctor.Warn && strings.Contains(c.Text, "cannot be seen by this user") {
				unseen++
			}
		}
		if unseen != 1 || slices.ContainsFunc(groups, func(g string) bool { return !seen[g] }) {
			t.Errorf("%q: %v", domain, all[0].Checks)
		}
	}
}

// TestDoctorAsksGossip with the ring that the server gave last, but not where this host
// does without gossip.
func TestDoctorAsksGossip(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: t.TempDir(), DockerCertsDir: t.TempDir()}.withDefaults()
	joined(t, cfg.DataDir, "localhost:5000", "localhost:7443")
	s := store{cfg.DataDir}
	for _, c := range []struct {
		what  string
		shown shownStatus
		runs  bool
		asks  bool
	}{
		{"no agent has run", shownStatus{}, false, true},
		{"off", shownStatus{Gossip: off}, true, false},
		{"off, and nobody runs", shownStatus{Gossip: off}, false, true},
		{"its port is taken", shownStatus{Gossip: off, GossipProblem: "taken"}, true, true},
		{"nobody is heard", shownStatus{Gossip: "unreachable"}, true, true},
	} {
		c.shown.Format = stateFormat
		release := func() {}
		err := s.write(statusFile, c.shown)
		if c.runs && err == nil {
			release, err = s.lock()
		}
		if err != nil {
			t.Fatal(err)
		}
		a := &membership{cfg: cfg, store: s, log: cfg.Log}
		r, err := a.subject("")
		release()
		if err != nil || len(r.GossipKeys) > 0 != c.asks {
			t.Errorf("%s: %d keys, %v", c.what, len(r.GossipKeys), err)
		}
	}
}
