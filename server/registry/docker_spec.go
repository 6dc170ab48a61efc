package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

// Labels of what belongs to a server. Domain is on volumes, too.
const (
	domainLabel  = "io.trustcast.domain"
	fleetLabel   = "io.trustcast.fleet"
	replicaLabel = "io.trustcast.replica"
	specLabel    = "io.trustcast.spec"
	imageLabel   = "io.trustcast.image"
)

const (
	// inside is where replicas see the volume, as the official images expect it.
	inside = "/var/lib/registry"

	// maxPIDs bounds threads as well: a slow disk keeps one for each file that is read.
	maxPIDs = 4096
	// memoryStep keeps a replica as it is where a machine's memory grows and shrinks
	// a little (bytes).
	memoryStep = 64 << 20

	// idLength is in characters of base 32: of a million replicas two have one name
	// with luck, and then another is taken.
	idLength = 6
	// anyID stands for a replica in what is the same for all.
	anyID = "000000"
)

var replicaID = regexp.MustCompile(`^[a-z2-7]{6}$`)

func newReplicaID() string { return strings.ToLower(rand.Text()[:idLength]) }

// masked are the directories of the volume that are not a registry's: keys,
// records and the admin socket, users, certificates.
var masked = []string{"state", "auth", "certs"}

// nameless is what Docker does not take in names.
var nameless = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// containerName is for people: nothing is found by it.
func (d *Docker) containerName(id string) string {
	host := d.cfg.Domain
	if i := strings.LastIndex(host, ":"); i >= 0 {
		host = host[:i]
	}
	return "trustcast-" + strings.Trim(nameless.ReplaceAllString(host, "-"), "-") + "-" + id
}

// memoryOf is what a replica gets of its machine's memory (bytes): half, so that one
// which was made to take all it can ends alone, and neither the server nor the engine
// with it. A registry takes 4 MiB for each blob that it hands out. 0: no limit, on
// machines with next to nothing.
func memoryOf(machine int64) int64 { return machine / 2 / memoryStep * memoryStep }

// environment has the runtime collect garbage before the limit is met.
func (d *Docker) environment() []string {
	env := []string{"OTEL_TRACES_EXPORTER=none"} // else it looks for a collector on localhost
	if d.memory > 0 {
		env = append(env, "GOMEMLIMIT="+strconv.FormatInt(d.memory/10*9, 10))
	}
	return env
}

// container describes a replica's container but for its labels and image.
func (d *Docker) container(id string) (*container.Config, *container.HostConfig) {
	masks := map[string]string{}
	for _, dir := range masked {
		masks[inside+"/"+dir] = "ro,size=4k,mode=0000"
	}
	networkMode := container.NetworkMode("none")
	if d.cfg.Network != "" {
		networkMode = container.NetworkMode(d.cfg.Network)
	}
	pids, grace := int64(maxPIDs), graceSeconds
	return &container.Config{
			User:        strconv.Itoa(d.cfg.UID) + ":" + strconv.Itoa(d.gid),
			Env:         d.environment(),
			Entrypoint:  []string{"registry"},
			Cmd:         []string{"serve", inside + "/" + configName(id)},
			WorkingDir:  "/",
			StopSignal:  "SIGTERM",
			StopTimeout: &grace,
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, // the edge asks
		}, &container.HostConfig{
			NetworkMode:    networkMode,
			ReadonlyRootfs: true,
			CapDrop:        []string{"ALL"},
			SecurityOpt:    []string{"no-new-privileges"},
			Tmpfs:          masks,
			Mounts: []mount.Mount{{
				Type: mount.TypeVolume, Source: d.cfg.Volume, Target: inside,
				VolumeOptions: &mount.VolumeOptions{NoCopy: true}, // nothing of an image gets into the data
			}},
			// The server decides what runs, also after a restart of the engine.
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
			LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}},
			UsernsMode:    "host", // files of the volume have the same owner inside and outside
			Resources:     container.Resources{PidsLimit: &pids, Memory: d.memory},
			// Out of memory, the machine ends a replica before the server.
			OomScoreAdj: 500,
		}
}

// spec is a hash over all that decides what a replica is, but for its image.
func (d *Docker) spec() (string, error) {
	file, err := d.cfg.Config(inside + "/" + socketName(anyID))
	if err != nil {
		return "", fmt.Errorf("the registry's configuration: %w", err)
	}
	config, host := d.container(anyID)
	text, err := json.Marshal([]any{config, host, d.cfg.Volume, string(file)})
	if err != nil {
		return "", fmt.Errorf("describe a replica: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func (d *Docker) labels(id, ref, spec string) map[string]string {
	return map[string]string{
		domainLabel: d.cfg.Domain, fleetLabel: d.cfg.Fleet,
		replicaLabel: id, specLabel: spec, imageLabel: ref,
	}
}

// withoutImageSettings takes REGISTRY_ variables of an image out of the
// environment: they would win over the configuration, listen address included.
func withoutImageSettings(env, ofImage []string) []string {
	for _, variable := range ofImage {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "REGISTRY_") {
			env = append(env, name) // without "=": the engine removes it
		}
	}
	return env
}

// settingsFile is the default of DockerConfig.Config.
func (cfg DockerConfig) settingsFile(socket string) ([]byte, error) {
	return cfg.Parameters.File(inside, cfg.HTTPSecret, socket)
}
