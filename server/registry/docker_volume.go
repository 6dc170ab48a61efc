package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
)

// DockerVolume makes the named volume of a registry, labelled with its domain,
// unless it is there: then it is used as it is. It returns where this process finds
// the volume's content, which is the data directory to use. Host is as in
// DockerConfig.
func DockerVolume(ctx context.Context, host, name, domain string) (dir string, err error) {
	api, err := connect(ctx, host)
	if err != nil {
		return "", err
	}
	defer func() { _ = api.Close() }() // idle connections only
	v, err := api.VolumeInspect(ctx, name)
	made := cerrdefs.IsNotFound(err)
	if made {
		v, err = api.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: map[string]string{domainLabel: domain}})
	}
	if err != nil {
		return "", explain(err, "make the volume "+name)
	}
	if dir, err = volumeDir(ctx, api, v); err == nil || !made {
		return dir, err
	}
	return "", errors.Join(err, explain(api.VolumeRemove(ctx, name, false), "remove the volume "+name))
}

// volumeDir returns where this process finds the content of a volume.
func volumeDir(ctx context.Context, api *dockerAPI, v volume.Volume) (string, error) {
	self, err := ownContainer(ctx, api)
	if err != nil {
		return "", err
	}
	for _, m := range self.Mounts {
		if m.Type == mount.TypeVolume && m.Name == v.Name {
			return m.Destination, nil
		}
	}
	for _, dir := range volumeDirs(v) {
		if _, err := os.ReadDir(dir); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the data of the volume %s is not to be seen from here: either run trustcast as root on the engine's own machine, or run it in a container with the volume and the engine's socket, "+
		"`docker run --volume %s:/var/lib/trustcast --volume /var/run/docker.sock:/var/run/docker.sock … trustcast …`", v.Name, v.Name)
}

// volumeDirs are the directories of the engine's machine with a volume's content:
// its mountpoint, and what a volume of a directory stands for, which is mounted only
// while a container uses it.
func volumeDirs(v volume.Volume) []string {
	if device := v.Options["device"]; device != "" {
		if v.Driver == "local" && slices.Contains(strings.Split(v.Options["o"], ","), "bind") {
			return []string{device}
		}
		return nil // a mountpoint without its mount is somebody else's directory
	}
	return []string{v.Mountpoint}
}

// checkVolume says what to do unless the data directory is the volume.
func (d *Docker) checkVolume(ctx context.Context) error {
	v, err := d.api.VolumeInspect(ctx, d.cfg.Volume)
	if cerrdefs.IsNotFound(err) {
		return fmt.Errorf("there is no Docker volume %s: make it, and the registry in it, with `trustcast init --domain %s --engine docker --volume %s`", d.cfg.Volume, d.cfg.Domain, d.cfg.Volume)
	}
	if err != nil {
		return explain(err, "look for the volume "+d.cfg.Volume)
	}
	root, err := os.Stat(d.cfg.Root)
	if err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	dirs := volumeDirs(v)
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && os.SameFile(root, info) {
			return nil
		}
	}
	self, err := ownContainer(ctx, d.api)
	if err != nil {
		return err
	}
	for _, m := range self.Mounts {
		if m.Type == mount.TypeVolume && m.Name == v.Name && filepath.Clean(m.Destination) == filepath.Clean(d.cfg.Root) {
			return nil
		}
	}
	return fmt.Errorf("the data directory %[1]s is not the content of the volume %[2]s, where replicas would look for it: either give the volume that has the data, "+
		"or run the server on the engine's machine in this one (`trustcast server --engine docker --volume %[2]s --data-dir %[3]s`), "+
		"or in a container with the volume at its data directory (`docker run --volume %[2]s:%[1]s --volume /var/run/docker.sock:/var/run/docker.sock … trustcast server --engine docker --volume %[2]s --data-dir %[1]s`), "+
		"or keep the data where it is and make a volume of the directory (`docker volume create --opt type=none --opt o=bind --opt device=%[1]s NAME`)",
		d.cfg.Root, v.Name, strings.Join(append(dirs, v.Mountpoint)[:1], ""))
}

// containerDir finds, in a process's mounts, the ID of the container that it is in:
// engines mount /etc/hostname and others from a directory of that name.
var containerDir = regexp.MustCompile(`/containers/([0-9a-f]{64})/`)

// ownContainer describes the container of the engine that this process is in; it is
// empty when it is in none.
func ownContainer(ctx context.Context, api *dockerAPI) (container.InspectResponse, error) {
	none := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{}}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return none, nil //nolint:nilerr // no Linux, so in no container
	}
	defer func() { _ = mounts.Close() }()
	var ids []string
	for s := bufio.NewScanner(mounts); s.Scan(); {
		if m := containerDir.FindStringSubmatch(s.Text()); m != nil && ownMount(s.Text()) {
			ids = append(ids, m[1])
		}
	}
	for _, id := range slices.Compact(ids) {
		self, err := api.ContainerInspect(ctx, id)
		if err == nil {
			return self, nil
		}
		if !cerrdefs.IsNotFound(err) { // else another engine's
			return none, explain(err, "look for the server's own container")
		}
	}
	return none, nil
}

// ownMount says whether a line of mountinfo is a mount that engines make in each
// container. On the host there are lines of other containers, with other targets.
func ownMount(line string) bool {
	fields := strings.Fields(line)
	return len(fields) > 4 && slices.Contains([]string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}, fields[4])
}

// unused makes sure that no container works on the volume, but the server's own.
func (d *Docker) unused(ctx context.Context) error {
	self, err := ownContainer(ctx, d.api)
	if err != nil {
		return err
	}
	users, err := d.api.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("volume", d.cfg.Volume))})
	if err != nil {
		return explain(err, "ask who uses the volume "+d.cfg.Volume)
	}
	for _, c := range users {
		if c.ID != self.ID {
			name := strings.TrimPrefix(strings.Join(append(c.Names, c.ID)[:1], ""), "/")
			return fmt.Errorf("the container %s uses the volume %s, whose files must change their owner first: stop it with `docker stop %s`", name, d.cfg.Volume, name)
		}
	}
	return nil
}
