package registry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
)

// FindVolume returns where this process finds the content of a Docker volume that is
// there already. Host is as in DockerConfig.
func FindVolume(ctx context.Context, host, name string) (dir string, err error) {
	api, err := connect(ctx, host)
	if err != nil {
		return "", err
	}
	defer func() { _ = api.Close() }() // idle connections only
	v, err := api.VolumeInspect(ctx, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return "", fmt.Errorf("there is no Docker volume %s: `docker volume ls` shows those there are", name)
	case err != nil:
		return "", explain(err, "look for the volume "+name)
	}
	return volumeDir(ctx, api, v)
}

// Mounted names the running containers that have a directory of this machine, what it
// is in, or something in it mounted; not the one that this process is in. Host is as
// in DockerConfig.
func Mounted(ctx context.Context, host, dir string) ([]string, error) {
	return mounted(ctx, host, dir, func(m container.MountPoint, dir string) bool {
		return within(m.Source, dir) || within(dir, m.Source)
	})
}

// writers names the running containers that write in a directory; not those that have
// all of the machine mounted to look after it.
func writers(ctx context.Context, host, dir string) ([]string, error) {
	return mounted(ctx, host, dir, func(m container.MountPoint, dir string) bool {
		return m.RW && (within(m.Source, dir) || sameDir(m.Source, dir))
	})
}

// sameDir: a volume of a directory is mounted at another path while it is used.
func sameDir(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

func mounted(ctx context.Context, host, dir string, counts func(m container.MountPoint, dir string) bool) ([]string, error) {
	api, err := connect(ctx, host)
	if err != nil {
		return nil, err
	}
	defer func() { _ = api.Close() }() // idle connections only
	self, err := ownContainer(ctx, api)
	if err != nil {
		return nil, err
	}
	running, err := api.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return nil, explain(err, "ask which containers run")
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var names []string
	for _, c := range running {
		for _, m := range c.Mounts {
			if c.ID != self.ID && m.Source != "" && counts(m, dir) {
				names = append(names, strings.TrimPrefix(append(c.Names, c.ID)[0], "/"))
				break
			}
		}
	}
	return names, nil
}

// within: path is dir or something in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
