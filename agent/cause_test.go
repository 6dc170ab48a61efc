package agent

import (
	"errors"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/agent/install"
)

// TestCause: people read why, not where in gRPC it happened.
func TestCause(t *testing.T) {
	for text, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.1:7443: connect: connection refused"`:                  "connection refused",
		`connection error: desc = "transport: Error while dialing: dial tcp: lookup nowhere.test on 192.0.2.53:53: no such host"`:          "lookup nowhere.test on 192.0.2.53:53: no such host",
		`connection error: desc = "transport: authentication handshake failed: what answers at b.test:7443 is not this host's server: no"`: "what answers at b.test:7443 is not this host's server: no",
		"the server is stopping": "the server is stopping",
	} {
		if got := cause(status.Error(codes.Unavailable, text)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if err := unreachable(status.Error(codes.PermissionDenied, "removed"), "no"); errors.Is(err, ErrUnreachable) {
		t.Errorf("a server that answers is unreachable: %v", err)
	}
}

// TestWentAway: what a restart may look like, and what it never does.
func TestWentAway(t *testing.T) {
	const handshake = `connection error: desc = "transport: authentication handshake failed: `
	for _, c := range []struct {
		err  error
		want bool
	}{
		{status.Error(codes.Unavailable, "the server is stopping"), true},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.1:7443: connect: connection refused"`), true},
		{status.Error(codes.Unavailable, handshake+`EOF"`), true},
		{status.Error(codes.Unavailable, handshake+`context deadline exceeded"`), true},
		{status.Error(codes.Unavailable, handshake+`read tcp 192.0.2.2:40000->192.0.2.1:7443: read: connection reset by peer"`), true},
		{status.Error(codes.Unavailable, handshake+`what answers at b.test:7443 is not this host's server: no"`), false},
		{status.Error(codes.PermissionDenied, "removed"), false},
		{errors.New("another"), false},
		{nil, false},
	} {
		if got := wentAway(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// TestPlaceThatFails: a place that cannot be used at all is named by its own directory.
func TestPlaceThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs.d")
	all := places([]install.Found{{Runtime: "rootless:alice", Path: dir, Dir: dir, Problem: "not permitted"}})
	if len(all) != 1 || all[0].GetDir() != dir || all[0].GetProblem() != "not permitted" {
		t.Errorf("places: %v, want one at %s", all, dir)
	}
}

// TestParseRuntimes: podman and its relatives are names for one directory.
func TestParseRuntimes(t *testing.T) {
	got, err := ParseRuntimes([]string{"docker", "podman", "crio", "containers"})
	if err != nil || len(got) != 2 || got[1] != install.RuntimeContainers {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := ParseRuntimes([]string{"rkt"}); err == nil {
		t.Error("rkt is a runtime")
	}
}
