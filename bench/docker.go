package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// The contenders of docker besides the official registry without a container.
const (
	oursReplica = "trustcast, docker engine, reads by the replica"
	oursFiles   = "trustcast, docker engine"
	container   = "registry 3.1.2 in a container"
)

// dockerBlob is smaller than those of blobs: the volume is the machine's engine's.
const dockerBlob = 64 << 20

// dockerEngine measures a registry in a container without a network, behind our edge.
func dockerEngine(ctx context.Context, l *lab) (_ *table, err error) {
	t := &table{
		title:    "The docker engine: one replica in a container, behind a Unix socket",
		subjects: []string{oursReplica, oursFiles, container, official},
		unequal: []string{
			"ours signs every request in; " + official + " asks nobody for a password, with or without a container",
			container + " is of the same image, on the host's network, with its data in a volume as ours: the goals are against it, since files cost more in containers by what the engine's storage driver adds (" + storageDriver(ctx) + " here); " + official + " is a plain process beside them",
			"as by default, " + oursFiles + " answers manifests and blobs from the volume's files; " + oursReplica + " has REGISTRY_HEALTH_STORAGEDRIVER_ENABLED=true, so that each request goes through the socket",
			"processor time is that of the server and its replica together",
		},
	}
	image, err := random.Image(dockerBlob, 1)
	if err != nil {
		return nil, err
	}
	layer, err := layerOf(image)
	if err != nil {
		return nil, err
	}
	contenders := map[string]*site{}
	if why := noDocker(ctx); why != nil {
		t.subjects = []string{official}
		t.unequal = append(t.unequal, "ours is left out: "+why.Error())
	} else {
		name := "trustcast-bench/registry:" + unique()
		defer func() { // in this order: an image that is in use only loses its name
			ctx := context.WithoutCancel(ctx)
			for _, s := range contenders {
				err = errors.Join(err, s.remove(ctx))
			}
			_, failed := output(ctx, nil, "docker", "image", "rm", "--force", name)
			err = errors.Join(err, failed)
		}()
		if err := l.registryImage(ctx, name); err != nil {
			return nil, err
		}
		for subject, env := range map[string][]string{oursReplica: {"REGISTRY_HEALTH_STORAGEDRIVER_ENABLED=true"}, oursFiles: nil} {
			if contenders[subject], err = l.trustcastDocker(ctx, name, env...); err != nil {
				return nil, err
			}
		}
		if contenders[container], err = l.registryContainer(ctx, name); err != nil {
			return nil, err
		}
	}
	open, err := l.registry3(ctx, false)
	if err != nil {
		return nil, err
	}
	contenders[official] = &site{contender: open}
	return t, l.compareDocker(ctx, t, contenders, image, layer)
}

func (l *lab) compareDocker(ctx context.Context, t *table, contenders map[string]*site, image v1.Image, layer string) error {
	for _, s := range contenders {
		if err := s.push(ctx, image); err != nil {
			return err
		}
	}
	for range l.rounds {
		for _, subject := range t.subjects {
			s := contenders[subject]
			for _, q := range []struct{ what, path, accept string }{{"GET /v2/", "/v2/", ""}, {"manifest by tag", "/v2/bench/image/manifests/v1", accepted}} {
				if err := measure(ctx, t, subject, q.what, s, s.at(q.path, q.accept), time.Second); err != nil {
					return err
				}
			}
			if err := throughput(ctx, t, subject, "4 connections", s, s.at("/v2/bench/image/blobs/"+layer, ""), 4); err != nil {
				return err
			}
		}
	}
	if contenders[oursReplica] == nil {
		return nil // there is nothing to ask for
	}
	for _, subject := range []string{oursReplica, oursFiles} {
		for _, r := range []*row{t.row("manifest by tag", perSecond), t.row("blob, 4 connections", mibPerSecond)} {
			t.atLeast(r.what+": "+subject, figure{ours: r.median(subject), peer: r.median(container), unit: r.unit}, 0.75)
		}
	}
	return nil
}

func noDocker(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("it takes root")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := output(ctx, nil, "docker", "version")
	return err
}

func storageDriver(ctx context.Context) string {
	said, err := output(ctx, nil, "docker", "info", "--format", "{{.Driver}}")
	if err != nil {
		return "none"
	}
	return strings.TrimSpace(said)
}

// registryImage makes an image as the official one is, of the registry that is
// measured beside it.
func (l *lab) registryImage(ctx context.Context, name string) error {
	program, err := l.module(ctx, distribution, "", distribution+"/cmd/registry")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(l.dir, "image-")
	if err != nil {
		return err
	}
	if err := os.Link(program, filepath.Join(dir, "registry")); err != nil {
		return err
	}
	const recipe = "FROM scratch\nCOPY registry /bin/registry\nVOLUME [\"/var/lib/registry\"]\nEXPOSE 5000\nENTRYPOINT [\"registry\"]\nCMD [\"serve\", \"/etc/distribution/config.yml\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(recipe), 0o600); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "docker", "build", "--quiet", "--force-rm", "--tag", name, dir)
	build.Env = append(os.Environ(), "DOCKER_BUILDKIT=0") // buildx may not be there
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// unique is a name's part that no other run has.
func unique() string { return strings.ToLower(rand.Text()[:10]) }

// site is a contender that may have containers and a volume.
type site struct {
	*contender
	volume   string // empty: neither
	replicas []*process
}

// trustcastDocker starts ours with one replica. Settings reach it by the environment.
func (l *lab) trustcastDocker(ctx context.Context, image string, env ...string) (*site, error) {
	s := &site{volume: "trustcast-bench-" + unique()}
	env = append(env, "TRUSTCAST_ENGINE=docker", "TRUSTCAST_VOLUME="+s.volume, "TRUSTCAST_REGISTRY_IMAGE="+image)
	restore, err := setenv(env)
	if err != nil {
		return nil, err
	}
	s.contender, err = l.trustcast(ctx)
	err = errors.Join(err, restore())
	if err == nil {
		err = s.find(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// setenv sets variables for the programs that are started until restore.
func setenv(env []string) (restore func() error, err error) {
	restore = func() (err error) {
		for _, v := range env {
			name, _, _ := strings.Cut(v, "=")
			err = errors.Join(err, os.Unsetenv(name))
		}
		return err
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, errors.Join(err, restore())
		}
	}
	return restore, nil
}

// registryContainer starts the official registry in a container.
func (l *lab) registryContainer(ctx context.Context, image string) (*site, error) {
	dir, err := os.MkdirTemp(l.dir, "container-")
	if err != nil {
		return nil, err
	}
	ca, err := serverPair(dir)
	if err != nil {
		return nil, err
	}
	address, err := free()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(dir+"/config.yml", []byte(registryConfig("/var/lib/registry", address, "/bench")), 0o600); err != nil {
		return nil, err
	}
	s := &site{volume: "trustcast-bench-" + unique()}
	_, err = output(ctx, nil, "docker", "run", "--detach", "--network", "host", "--env", "OTEL_TRACES_EXPORTER=none",
		"--volume", s.volume+":/var/lib/registry", "--volume", dir+":/bench:ro", image, "serve", "/bench/config.yml")
	if err == nil {
		err = s.find(ctx)
	}
	if err == nil {
		p := s.replicas[0]
		s.replicas = nil
		s.contender = &contender{p, target{address: address, roots: pool(ca), path: "/v2/"}, dir}
		err = p.listens(ctx, address)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// containers are those on the site's volume.
func (s *site) containers(ctx context.Context) ([]string, error) {
	listed, err := output(ctx, nil, "docker", "ps", "--all", "--quiet", "--filter", "volume="+s.volume)
	return strings.Fields(listed), err
}

// find waits for the process of the site's container.
func (s *site) find(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		ids, err := s.containers(ctx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			said, err := output(ctx, nil, "docker", "inspect", "--format", "{{.State.Pid}}", id)
			if err != nil {
				return err
			}
			pid, err := strconv.Atoi(strings.TrimSpace(said))
			if err != nil || pid == 0 {
				continue
			}
			found, err := os.FindProcess(pid)
			if err != nil {
				return err
			}
			s.replicas = []*process{{name: "the container " + id, cmd: &exec.Cmd{Process: found}}}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no container runs on %s: %w", s.volume, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// cpu is the processor time of all that answer.
func (s *site) cpu() (time.Duration, error) {
	total, err := s.process.cpu()
	for _, p := range s.replicas {
		more, failed := p.cpu()
		total, err = total+more, errors.Join(err, failed)
	}
	return total, err
}

// remove ends the server, and leaves nothing in the machine's engine.
func (s *site) remove(ctx context.Context) error {
	if s == nil || s.volume == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if s.contender != nil {
		err = s.end()
	}
	ids, failed := s.containers(ctx)
	err = errors.Join(err, failed)
	for _, id := range ids {
		_, failed := output(ctx, nil, "docker", "rm", "--force", "--volumes", id)
		err = errors.Join(err, failed)
	}
	_, failed = output(ctx, nil, "docker", "volume", "rm", "--force", s.volume)
	return errors.Join(err, failed)
}
