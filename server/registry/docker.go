package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

const (
	// DefaultImage is what replicas run when nothing else is said.
	DefaultImage = "registry:3"

	// unprivileged is the user of replicas when the server is root: the "nonroot" of
	// images without a user database. Nobody of the host has it.
	unprivileged = 65532

	// openWithin is far above the half second that a replica takes here.
	openWithin = 30 * time.Second
	// graceSeconds is what a replica gets after SIGTERM; nobody asks it any more then.
	graceSeconds = 10
	// tidyWithin bounds what is removed after a failure, also when the caller is gone.
	tidyWithin = time.Minute
	// lastWords is how many lines of its log the error about a dead replica has.
	lastWords = 10
)

// DockerConfig is for NewDocker. Domain, Fleet, Volume and Root are needed.
type DockerConfig struct {
	// Domain is the registry's, HOST:PORT. Replicas are named by its host, and
	// belong to this server when Domain and Fleet are theirs.
	Domain string
	// Fleet is the ID of the server's fleet.
	Fleet string
	// Volume is the named volume with all data, which must be there: DockerVolume
	// makes it. Replicas see it as /var/lib/registry.
	Volume string
	// Root is the data directory: the volume's content as this process sees it. It
	// bounds where sockets can be: Root with run/xxxxxx.sock has at most 107 bytes.
	Root string
	// Image that replicas run unless Open is told another. Default: DefaultImage.
	Image string
	// Network that replicas are in besides answering on their socket, for storage
	// and notifications elsewhere. Default: none at all.
	Network string
	// Config returns the configuration file of a replica that listens on a Unix
	// socket at that path. It must return the same for the same path as long as
	// replicas are right as they are, also in a next life of the server. Default:
	// Parameters with HTTPSecret.
	Config func(socket string) ([]byte, error)
	// Parameters are the operator's, for Docker. Default: none were given.
	Parameters *parameters.Set
	// HTTPSecret is as in EmbeddedConfig, and used by the default Config only.
	HTTPSecret string
	// UID is whom replicas run as. Default: 65532. The process itself must be root: a
	// replica of its own user could read what it keeps.
	UID int
	// Host is the engine's address, such as unix:///var/run/docker.sock. Default:
	// DOCKER_HOST, or the usual socket.
	Host string
	// Log takes what takes long: pulls and changes of owners; and when the engine
	// goes and comes. Default: discard.
	Log *slog.Logger
}

// Docker is an engine whose replicas are containers of a registry image. They have
// no network, no privileges, and see of the volume only what is a registry's. The
// engine keeps no state: containers carry their description as labels.
type Docker struct {
	cfg   DockerConfig
	api   *dockerAPI
	gid   int
	newID func() string
	// patience is openWithin.
	patience time.Duration

	checkMu sync.Mutex
	checked bool  // guarded by checkMu: nothing is wrong with the engine and the volume
	memory  int64 // of a replica (bytes), set before checked is; 0: no limit

	ownMu sync.Mutex
	owned bool // guarded by ownMu: the blobs belong to the replicas' user
}

var _ Engine = (*Docker)(nil)

// NewDocker returns the engine over an existing volume and finds what is wrong with
// cfg, the Docker engine and the volume. It starts nothing. An engine that does not
// answer is no error but a warning: whoever else needs the server is not made to wait
// for it, and Found looks again.
func NewDocker(ctx context.Context, cfg DockerConfig) (*Docker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	api, err := newClient(cfg.Host)
	if err != nil {
		return nil, err
	}
	d := &Docker{cfg: cfg, api: api, gid: os.Getgid(), newID: newReplicaID, patience: openWithin}
	if cfg.UID != os.Geteuid() {
		d.gid = cfg.UID
	}
	err = d.check(ctx)
	if unreachable(err) {
		cfg.Log.Warn("the Docker engine does not answer: the registry serves when it does", "err", err)
		return d, nil
	}
	if err != nil {
		_ = api.Close() // idle connections only
		return nil, err
	}
	return d, nil
}

func (cfg DockerConfig) withDefaults() (DockerConfig, error) {
	for _, needed := range []struct{ value, name string }{{cfg.Domain, "domain"}, {cfg.Fleet, "fleet"}, {cfg.Volume, "volume"}, {cfg.Root, "data directory"}} {
		if needed.value == "" {
			return cfg, fmt.Errorf("the Docker engine needs a %s: give --volume and --data-dir of an initialized registry", needed.name)
		}
	}
	var err error
	if cfg.Root, err = filepath.Abs(cfg.Root); err != nil {
		return cfg, fmt.Errorf("the data directory: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Image == "" {
		cfg.Image = DefaultImage
	}
	if cfg.HTTPSecret == "" {
		cfg.HTTPSecret = rand.Text() + rand.Text()
	}
	if cfg.Parameters == nil {
		if cfg.Parameters, err = parameters.Parse(nil, nil, parameters.Options{Engine: "docker"}); err != nil {
			return cfg, err
		}
	}
	if cfg.Config == nil {
		cfg.Config = cfg.settingsFile
	}
	if os.Geteuid() != 0 {
		return cfg, errors.New("the Docker engine needs the server to run as root: its containers run as a user that can read neither keys nor records, and only root can give them their files; whoever has the engine's socket is root anyway")
	}
	if cfg.UID == 0 {
		cfg.UID = unprivileged
	}
	return cfg, nil
}

// Name returns "docker".
func (d *Docker) Name() string { return "docker" }

// Found adopts replicas of an earlier life that run, answer and are configured as Open
// would do it; those of another image are outdated. All other replicas of this domain
// and fleet are removed, and files of replicas that are gone. Containers without our
// labels are left alone.
func (d *Docker) Found(ctx context.Context, ref string) ([]Endpoint, error) {
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	ref = d.image(ref)
	spec, err := d.spec()
	if err != nil {
		return nil, err
	}
	image, err := d.localImage(ctx, ref)
	if err != nil && !cerrdefs.IsNotFound(err) {
		return nil, explain(err, "look for the image "+ref)
	}
	all, err := d.list(ctx, true, "")
	if err != nil {
		return nil, err
	}
	// What they serve was put there by somebody else meanwhile, such as a restore.
	mine := false
	if err := d.inRoot(func(root *os.Root) (err error) {
		mine, err = owned(root, owner{d.cfg.UID, d.gid})
		return err
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []Endpoint
	for _, c := range all {
		id := c.Labels[replicaLabel]
		// Nor does one that is configured otherwise serve on: it may keep what is pushed elsewhere.
		right := mine && c.State == container.StateRunning && c.Labels[specLabel] == spec
		if right && d.answers(ctx, id) == nil {
			// Without the image, its name must do.
			current := c.ImageID == image.ID || image.ID == "" && c.Labels[imageLabel] == ref
			found = append(found, Endpoint{ID: id, Socket: d.socket(id), UID: d.cfg.UID, Image: c.Labels[imageLabel], Started: time.Unix(c.Created, 0), Outdated: !current})
			continue
		}
		d.cfg.Log.Info("a replica of an earlier life is removed", "replica", id, "state", c.State)
		if err := d.remove(ctx, c.ID, id); err != nil {
			return nil, err
		}
	}
	return found, d.sweep(found)
}

// Open starts a replica of ref, or of the image of the configuration when ref is
// empty, which is pulled unless it is here.
func (d *Docker) Open(ctx context.Context, ref string) (Endpoint, error) {
	if err := d.check(ctx); err != nil {
		return Endpoint{}, err
	}
	ref = d.image(ref)
	image, err := d.wantImage(ctx, ref)
	if err != nil {
		return Endpoint{}, err
	}
	spec, err := d.spec()
	if err != nil {
		return Endpoint{}, err
	}
	if err := d.own(ctx); err != nil {
		return Endpoint{}, err
	}
	id, containerID, err := d.create(ctx, ref, spec, image)
	if err != nil {
		return Endpoint{}, err
	}
	if err := d.start(ctx, id, containerID, ref); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWithin)
		defer cancel()
		return Endpoint{}, errors.Join(err, d.remove(ctx, containerID, id))
	}
	return Endpoint{ID: id, Socket: d.socket(id), UID: d.cfg.UID, Image: ref, Started: time.Now()}, nil
}

// Close stops a replica and removes its container, socket and configuration.
func (d *Docker) Close(ctx context.Context, id string) error {
	if !replicaID.MatchString(id) {
		return nil // never one of this engine
	}
	all, err := d.list(ctx, true, id)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := d.remove(ctx, c.ID, id); err != nil {
			return err
		}
	}
	return d.removeFiles(id)
}

// Alive asks the engine which of them run, and are not paused by somebody. It looks
// at each one: the list is behind the events that make Run call.
func (d *Docker) Alive(ctx context.Context, ids []string) ([]string, error) {
	listed, err := d.list(ctx, false, "")
	if err != nil {
		return nil, err
	}
	running := map[string]bool{}
	for _, c := range listed {
		id := c.Labels[replicaLabel]
		if !slices.Contains(ids, id) {
			continue
		}
		seen, err := d.api.ContainerInspect(ctx, c.ID)
		if err != nil && !cerrdefs.IsNotFound(err) {
			return nil, explain(err, "look at the replica "+id)
		}
		running[id] = err == nil && seen.State.Running && !seen.State.Paused
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !running[id] }), nil
}

// list returns this server's containers, those that run or all, of one replica or,
// with an empty id, of every one.
func (d *Docker) list(ctx context.Context, all bool, id string) ([]container.Summary, error) {
	found, err := d.api.ContainerList(ctx, container.ListOptions{All: all, Filters: d.ours(id)})
	return found, explain(err, "list the registry's containers")
}

func (d *Docker) ours(id string) filters.Args {
	args := filters.NewArgs(filters.Arg("label", domainLabel+"="+d.cfg.Domain), filters.Arg("label", fleetLabel+"="+d.cfg.Fleet))
	if id != "" {
		args.Add("label", replicaLabel+"="+id)
	} else {
		args.Add("label", replicaLabel)
	}
	return args
}

func (d *Docker) image(ref string) string {
	if ref == "" {
		return d.cfg.Image
	}
	return ref
}
