package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/cli"
	old "github.com/trustcast/trustcast/internal/plain"
	"github.com/trustcast/trustcast/test/images"
)

// TestAdoptedInUse: what an old container may still write to is taken over, and not
// served beside it.
func TestAdoptedInUse(t *testing.T) {
	image := images.Registry(t)
	dir, dataDir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	pair, err := old.SelfSigned(old.Options{}, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Write(dir, pair, "", "team/app"); err != nil {
		t.Fatal(err)
	}
	docker := func(args ...string) string {
		t.Helper()
		var stderr bytes.Buffer
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", args...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, &stderr)
		}
		return strings.TrimSpace(string(out))
	}
	id := docker("run", "--detach", "--network", "none", "--volume", dir+":/var/lib/registry", image)
	t.Cleanup(func() { docker("rm", "--force", "--volumes", id) })
	name := strings.TrimPrefix(docker("inspect", "--format", "{{.Name}}", id), "/")

	var out bytes.Buffer
	line := []string{"server", "--init", "--domain", "localhost", "--adopt", dir, "--data-dir", dataDir, "--config", "off"}
	line = append(line, "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--gossip-listen", "off", "--http-listen", "off")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // for a server that should not run
	defer cancel()
	err = run(ctx, line, func(string) string { return "" }, strings.NewReader(""), &out, &out)
	if cli.Code(err) != cli.Failed || !strings.Contains(err.Error(), "`docker stop "+name+"`, then repeat the command") {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(out.String(), "repositories") || strings.Contains(out.String(), "msg=serving") {
		t.Errorf("it said:\n%s", &out)
	}
}
