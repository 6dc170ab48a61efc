//go:build linux

package fleet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rootless starts Alice's own engine on the host, as dockerd-rootless.sh does, but on
// the host's network; nil when its programs are not here.
func (r *runtimes) rootless(t *testing.T) *puller {
	t.Helper()
	var absent []string
	for _, tool := range []string{"rootlesskit", "newuidmap", "setpriv", "/etc/subuid"} {
		if _, err := exec.LookPath(tool); err != nil && !strings.HasPrefix(tool, "/") {
			absent = append(absent, tool)
		} else if _, err := os.Stat(tool); err != nil && strings.HasPrefix(tool, "/") {
			absent = append(absent, tool)
		}
	}
	if len(absent) > 0 {
		t.Logf("a rootless Docker needs %s: Debian has them in rootlesskit, uidmap and util-linux", strings.Join(absent, ", "))
		return nil
	}
	must(t, os.Mkdir(r.h.path("home/alice/run"), 0o700))
	must(t, os.Chown(r.h.path("home/alice/run"), aliceID, aliceID))
	id := strconv.Itoa(aliceID)
	engine := `rm -f /run/docker /run/containerd /run/xtables.lock; cd "$HOME"; exec dockerd --rootless --host unix://$HOME/run/docker.sock --data-root $HOME/run/data ` +
		`--exec-root $HOME/run/exec --pidfile $HOME/run/docker.pid --storage-driver vfs --bridge=none --iptables=false --ip6tables=false`
	argv := append(r.h.enter(), "setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps=-all",
		"env", "HOME=/home/alice", "XDG_RUNTIME_DIR=/home/alice/run",
		"rootlesskit", "--net=host", "--copy-up=/etc", "--copy-up=/run", "--state-dir=/home/alice/run/kit", "sh", "-c", engine)
	p, err := r.run.start("rootless", nil, argv...)
	must(t, err)
	t.Cleanup(func() {
		if err := p.terminate(); err != nil {
			t.Error(err)
		}
	})
	docker := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), pullBound)
		defer cancel()
		argv := append([]string{"docker", "--config", r.h.path("client"), "--host", "unix://" + r.h.path("home/alice/run/docker.sock")}, args...)
		return r.run.output(ctx, nil, "", argv...)
	}
	must(t, until(60*time.Second, "the rootless Docker", func() (bool, string) {
		_, err := docker("version")
		return err == nil, fmt.Sprint(err, "\n", tail(p.log, 10))
	}))
	return &puller{name: "rootless docker", pull: func(int) error {
		if _, err := docker("image", "rm", "--force", appImage); err != nil && !strings.Contains(err.Error(), "No such image") {
			return err
		}
		_, err := docker("pull", "--quiet", appImage)
		return err
	}}
}
