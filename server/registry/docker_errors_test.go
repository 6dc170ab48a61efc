package registry

import (
	"errors"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
)

func TestExplain(t *testing.T) {
	if explain(nil, "anything") != nil {
		t.Error("nil became an error")
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("write /var/lib/docker/x: no space left on device"), "free space"},
		{cerrdefs.ErrPermissionDenied, "as root"},
		{errors.New("something new"), "do it: something new"},
	} {
		err := explain(c.err, "do it")
		if !errors.Is(err, c.err) || !strings.HasPrefix(err.Error(), "do it: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

// Lines of a process in a container, and of the machine that it runs on.
func TestOwnMount(t *testing.T) {
	id := strings.Repeat("0a", 32)
	inside := "1062 1039 254:0 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw"
	outside := "88 60 0:42 / /var/lib/docker/containers/" + id + "/mounts/shm rw,nosuid - tmpfs shm rw"
	for line, want := range map[string]bool{inside: true, outside: false, "": false} {
		if got := ownMount(line) && containerDir.MatchString(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
