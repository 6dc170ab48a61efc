package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// askLimit bounds a question to Docker.
const askLimit = 10 * time.Second

// DockerVolume returns the directory of a Docker volume, by the docker command.
func DockerVolume(ctx context.Context, name string) (string, error) {
	out, err := askDocker(ctx, "volume", "inspect", "--format", "{{.Mountpoint}}", name)
	if err != nil {
		return "", fmt.Errorf("find the Docker volume %s: %w", name, err)
	}
	dir := strings.TrimSpace(out)
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("find the Docker volume %s: it has no directory on this machine: give a tar of it", name)
	}
	return dir, nil
}

// DockerMounted names the running containers that have dir, or what it is in, or
// something in it, mounted, by the docker command.
func DockerMounted(ctx context.Context, dir string) ([]string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	ids, err := askDocker(ctx, "ps", "--quiet", "--no-trunc")
	if err != nil || strings.TrimSpace(ids) == "" {
		return nil, err
	}
	args := append([]string{"inspect", "--format", "{{.Name}}{{range .Mounts}}\t{{.Source}}{{end}}"}, strings.Fields(ids)...)
	out, err := askDocker(ctx, args...)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		for _, source := range fields[1:] {
			if source != "" && (within(source, dir) || within(dir, source)) {
				names = append(names, strings.TrimPrefix(fields[0], "/"))
				break
			}
		}
	}
	return names, nil
}

// within: path is dir or something in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func askDocker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // no shell reads it
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return "", errors.New(text)
		}
		return "", fmt.Errorf("the docker command does not work here: %w", err)
	}
	return stdout.String(), nil
}
