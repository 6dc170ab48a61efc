package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/trustcast/trustcast/internal/printable"
)

const (
	// lookEvery is how often a starting replica is looked at.
	lookEvery = 20 * time.Millisecond
	// pullSays is how often a pull says how far it is.
	pullSays = 10 * time.Second
	// otherNames is how many names are tried when somebody has them.
	otherNames = 5

	// retryFirst and retryLast bound the pauses while the engine is gone.
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
)

// localImage returns an image that need not be pulled.
func (d *Docker) localImage(ctx context.Context, ref string) (image.InspectResponse, error) {
	return d.api.ImageInspect(ctx, ref)
}

// wantImage returns the image, which is pulled when it is not here.
func (d *Docker) wantImage(ctx context.Context, ref string) (image.InspectResponse, error) {
	found, err := d.localImage(ctx, ref)
	if err == nil || !cerrdefs.IsNotFound(err) {
		return found, explain(err, "look for the image "+ref)
	}
	if err := d.pull(ctx, ref); err != nil {
		return found, err
	}
	found, err = d.localImage(ctx, ref)
	return found, explain(err, "look for the image "+ref)
}

func (d *Docker) pull(ctx context.Context, ref string) error {
	failed := func(err error) error {
		return fmt.Errorf("%w. Without a way to it, bring it here by hand (`docker save %s | ssh HERE docker load`), or name another image with --registry-image", explain(err, "pull the image "+ref), ref)
	}
	d.cfg.Log.Info("pulling the registry's image", "image", ref)
	stream, err := d.api.ImagePull(ctx, ref, image.PullOptions{})
	if err != nil {
		return failed(err)
	}
	defer func() { _ = stream.Close() }()
	layers := map[string][2]int64{} // done, of
	said := time.Now()
	for messages := json.NewDecoder(stream); ; {
		var m struct {
			ID             string
			Error          string
			ProgressDetail struct{ Current, Total int64 }
		}
		if err := messages.Decode(&m); errors.Is(err, io.EOF) {
			d.cfg.Log.Info("the registry's image is pulled", "image", ref)
			return nil
		} else if err != nil {
			return failed(err)
		}
		if m.Error != "" {
			return failed(errors.New(m.Error))
		}
		if m.ProgressDetail.Total > 0 {
			layers[m.ID] = [2]int64{m.ProgressDetail.Current, m.ProgressDetail.Total}
		}
		if time.Since(said) > pullSays {
			said = time.Now()
			var done, total int64
			for _, l := range layers {
				done, total = done+l[0], total+l[1]
			}
			d.cfg.Log.Info("pulling the registry's image", "image", ref, "bytes", done, "of", total)
		}
	}
}

// create writes the configuration of a new replica and makes its container. When
// somebody else has the container's name, another one is taken.
func (d *Docker) create(ctx context.Context, ref, spec string, img image.InspectResponse) (id, containerID string, err error) {
	for range otherNames {
		id = d.newID()
		if err = d.writeConfig(id); err != nil {
			return "", "", err
		}
		config, host := d.container(id)
		config.Image, config.Labels = img.ID, d.labels(id, ref, spec)
		if img.Config != nil {
			config.Env = withoutImageSettings(config.Env, img.Config.Env)
		}
		var made container.CreateResponse
		if made, err = d.api.ContainerCreate(ctx, config, host, nil, nil, d.containerName(id)); err == nil {
			return id, made.ID, nil
		}
		taken := cerrdefs.IsConflict(err)
		err = explain(err, "make the container "+d.containerName(id))
		if taken {
			err = fmt.Errorf("%w: another container has that name; rename it with `docker rename %s NAME`", err, d.containerName(id))
		}
		if tidy := d.removeFiles(id); tidy != nil || !taken {
			return "", "", errors.Join(err, tidy)
		}
	}
	return "", "", err
}

// start starts a container and returns when it answers.
func (d *Docker) start(ctx context.Context, id, containerID, ref string) error {
	what := "start a registry replica of " + ref
	if err := d.api.ContainerStart(ctx, containerID, container.StartOptions{}); err != nil {
		err = explain(err, what)
		if strings.Contains(err.Error(), "executable file not found") {
			err = fmt.Errorf("%w: the image has no program `registry`; name a registry image with --registry-image", err)
		}
		return err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var silent error
	for {
		err := d.answers(ctx, id)
		if err == nil {
			return nil
		}
		if silent == nil || ctx.Err() == nil {
			silent = err // and not that the time was over
		}
		seen, err := d.api.ContainerInspect(ctx, containerID)
		if err != nil && ctx.Err() == nil {
			return explain(err, what)
		}
		if err == nil && !seen.State.Running {
			return fmt.Errorf("%s: %s", what, d.obituary(ctx, containerID, seen.State))
		}
		select {
		case <-ctx.Done():
			if caller.Err() != nil {
				return fmt.Errorf("%s: %w", what, caller.Err())
			}
			return fmt.Errorf("%s: it did not answer within %v: %s%s", what, d.patience, inWords(silent), d.lastLines(ctx, containerID))
		case <-look.C:
		}
	}
}

// obituary says why a container ended and what to do about it.
func (d *Docker) obituary(ctx context.Context, containerID string, state *container.State) string {
	said := d.lastLines(ctx, containerID)
	text := fmt.Sprintf("it ended with exit code %d", state.ExitCode)
	switch {
	case state.OOMKilled:
		text += " since it took more memory than a replica gets, half of the machine's: give the machine more, or share the work with --replicas"
	case strings.Contains(said, "no space left on device"):
		text += " since the disk is full: free space"
	case strings.Contains(said, "permission denied"):
		text += ": its user may not use the data: see who owns docker/ and run/ of the data directory"
	case strings.Contains(said, "panic:"), strings.Contains(said, "configuration error"), strings.Contains(said, "error parsing"), strings.Contains(said, "unable to configure"):
		text += ": it refuses its configuration: correct the section `registry:` of the configuration file, or the REGISTRY_ variable"
	}
	return text + said
}

// lastLines returns what a container said last, for the end of an error, or nothing.
func (d *Docker) lastLines(ctx context.Context, containerID string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWithin)
	defer cancel()
	var said bytes.Buffer
	if err := d.copyLogs(ctx, containerID, 50, false, &said); err != nil || said.Len() == 0 {
		return ""
	}
	return "; it said:\n" + telling(said.String())
}

// telling keeps the lines of a log that explain its end: those before a stack, or
// the last ones. It has no secrets, though the log may.
func telling(log string) string {
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(log)); s.Scan(); {
		if strings.HasPrefix(s.Text(), "goroutine ") || strings.HasPrefix(s.Text(), "Usage:") {
			break
		}
		if s.Text() != "" {
			lines = append(lines, "  "+withoutSecrets(strings.Map(printable.Rune, s.Text())))
		}
	}
	return strings.Join(lines[max(0, len(lines)-lastWords):], "\n")
}

// remove ends a container that may run and removes it with its files. Named volumes
// stay, also with RemoveVolumes: that is for what an image declares besides.
func (d *Docker) remove(ctx context.Context, containerID, id string) error {
	grace := graceSeconds
	err := d.api.ContainerStop(ctx, containerID, container.StopOptions{Signal: "SIGTERM", Timeout: &grace})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return explain(err, "stop the replica "+id)
	}
	err = d.api.ContainerRemove(ctx, containerID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	// A conflict says that somebody else removes it at this moment.
	if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
		return explain(err, "remove the replica "+id)
	}
	return d.removeFiles(id)
}

// Logs writes a replica's output, both streams as one.
func (d *Docker) Logs(ctx context.Context, id string, tail int, follow bool, w io.Writer) error {
	all, err := d.list(ctx, true, id)
	if err != nil {
		return err
	}
	if id == "" || len(all) == 0 {
		return fmt.Errorf("there is no replica %q any more, and its log went with it: see `trustcast registry status`", id)
	}
	return d.copyLogs(ctx, all[0].ID, tail, follow, w)
}

func (d *Docker) copyLogs(ctx context.Context, containerID string, tail int, follow bool, w io.Writer) error {
	last := "all"
	if tail > 0 {
		last = strconv.Itoa(tail)
	}
	stream, err := d.api.ContainerLogs(ctx, containerID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: last, Follow: follow})
	if err != nil {
		return explain(err, "read a replica's log")
	}
	defer func() { _ = stream.Close() }()
	if _, err := stdcopy.StdCopy(w, w, stream); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read a replica's log: %w", err)
	}
	return nil
}

// Run tells of replicas that ended, and of an engine that is back after it was
// gone, until ctx ends.
func (d *Docker) Run(ctx context.Context, changed func()) error {
	defer func() { _ = d.api.Close() }() // idle connections only
	retry := &backoff.ExponentialBackOff{InitialInterval: retryFirst, Multiplier: 2, RandomizationFactor: 0.3, MaxInterval: retryLast}
	gone := false
	for {
		err := d.watch(ctx, func() {
			if gone {
				d.cfg.Log.Info("the Docker engine is back")
			}
			gone = false
			retry.Reset()
		}, changed)
		if ctx.Err() != nil {
			return nil
		}
		if !gone {
			d.cfg.Log.Warn("the Docker engine is gone", "err", err)
		}
		gone = true
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry.NextBackOff()):
		}
	}
}

// watch follows the engine's events until that ends with an error. It calls back
// when the engine answers, and changed then and for each replica that ends.
func (d *Docker) watch(ctx context.Context, back, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	wanted := d.ours("")
	for _, arg := range []filters.KeyValuePair{
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("event", string(events.ActionDie)),
		filters.Arg("event", string(events.ActionOOM)), filters.Arg("event", string(events.ActionPause)),
	} {
		wanted.Add(arg.Key, arg.Value)
	}
	messages, ended := d.api.Events(ctx, events.ListOptions{Filters: wanted})
	defer func() {
		cancel()
		for range ended { // the client's goroutine closes it last
		}
	}()
	if _, err := d.api.Ping(ctx); err != nil {
		return explain(err, "reach the Docker engine")
	}
	back()
	changed() // what happened before is not told
	for {
		select {
		case <-messages:
			changed()
		case err := <-ended:
			return fmt.Errorf("follow the Docker engine's events: %w", err)
		}
	}
}
