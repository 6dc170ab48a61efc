//go:build linux

package fleet_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trustcast/trustcast/test/images"
)

const (
	// diskBytes is a disk that bigImage does not fit on.
	diskBytes, diskOption   = 64 << 20, "size=64m"
	bigLayers, bigLayerSize = 3, 30 << 20
	bigLoaded               = "fleet/big:v1"
	bigImage                = domain + "/" + bigLoaded
	newImage                = domain + "/fleet/new:v1"
	// A quarter of it is the reserve of the records.
	diskMinFree, diskReserve = "8MiB", 2 << 20
)

// disk is a registry on a disk of its own that is too small.
type disk struct {
	*fleet
	dir    string
	engine []string // of the server
}

// TestFullDisk fills the registry's disk in the middle of a push, first with a reserve
// for the records, then to the last byte. The push fails, pulls go on, and with room
// again so does all; a rotation goes through while there is a reserve, and is refused
// whole where there is none.
func TestFullDisk(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("full disk: " + why)
	}
	t.Parallel()
	image := images.Registry(t)
	for engine, image := range map[string]string{"embedded": "", "docker": image} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel() // most of it is Docker's pauses between attempts to push
			fillUp(t, image)
		})
	}
}

// fillUp plays it with an engine: Docker's with that image, or the embedded one.
func fillUp(t *testing.T, image string) {
	begin := time.Now()
	d := &disk{fleet: newFleet(t, 1)}
	d.init(t, image)
	must(t, d.server.start("trustcast", nil, append(d.engine, "--min-free", diskMinFree)...))
	d.refusedEverywhere(t)
	d.testJoin(t)
	d.makeBig(t)
	d.scenario(t, "down to the reserve", d.testReserve)
	d.scenario(t, "to the last byte", d.testLastByte)
	t.Logf("full disk: %v; %v in all", &d.sum, time.Since(begin).Round(time.Second))
}

// init puts the server's data on the small disk; Docker's engine gets a volume of that
// directory, as its error messages recommend to those who choose their disk.
func (d *disk) init(t *testing.T, image string) {
	t.Helper()
	d.dir = d.run.path("disk")
	must(t, os.Mkdir(d.dir, 0o700))
	must(t, syscall.Mount("none", d.dir, "tmpfs", 0, diskOption))
	args := []string{"init", "--domain", domain, "--user", user, "--password-stdin"}
	if image == "" {
		d.server.dataDir = d.dir
	} else {
		volume := d.run.name()
		_, err := command("docker", "volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device="+d.dir, volume)
		must(t, err)
		args = append(args, "--engine", "docker", "--volume", volume)
		d.engine = []string{"--replicas", "2", "--registry-image", image}
	}
	_, err := d.server.commandInput(password+"\n", args...)
	must(t, err)
}

// makeBig gives the host an image that is larger than the registry's disk.
func (d *disk) makeBig(t *testing.T) {
	t.Helper()
	img, err := random.Image(bigLayerSize, bigLayers)
	must(t, err)
	tag, err := name.NewTag(bigLoaded)
	must(t, err)
	archive := d.run.path("big.tar")
	must(t, tarball.WriteToFile(archive, tag, img))
	for _, args := range [][]string{{"load", "--quiet", "--input", archive}, {"tag", bigLoaded, bigImage}} {
		_, err := d.hosts[0].dockerWithin(largeBound, "", args...)
		must(t, err)
	}
}

// testReserve has a push that the edge cuts: what it leaves is for the records, so that a
// rotation goes through while the push is tried again.
func (d *disk) testReserve(t *testing.T) {
	pushed := d.fill(t, "the reserve is reached", diskReserve)
	d.refusesUploads(t, http.StatusInsufficientStorage, "and takes no push below 8.0 MiB")
	d.pull(t, d.hosts[0])
	d.rotate(t)
	d.pull(t, d.hosts[0])
	d.pushFails(t, pushed, "507 Insufficient Storage")
	if log, err := os.ReadFile(d.server.log()); err != nil || !strings.Contains(string(log), "the disk is nearly full: pushes are refused, pulls go on") {
		t.Errorf("the server does not say that its disk is nearly full (%v)", err)
	}
	d.makeRoom(t)
}

// testLastByte has a push that nobody cuts, for an operator who wants no reserve: the
// engine meets the full disk, and so do the records.
func (d *disk) testLastByte(t *testing.T) {
	d.restart(t, "trustcast", "", append(d.engine, "--min-free", "0")...)
	d.waitTrusted(t, time.Minute)
	pushed := d.fill(t, "the disk is full", 1)
	d.refusesUploads(t, http.StatusInternalServerError, "no space left on device")
	d.pull(t, d.hosts[0])
	d.refusesRotation(t)
	d.pull(t, d.hosts[0])
	d.pushFails(t, pushed, "500 Internal Server Error")
	d.restart(t, "trustcast", "", append(d.engine, "--min-free", "0")...) // pulls must not end with the server's life
	d.pull(t, d.hosts[0])
	d.makeRoom(t)
	d.rotate(t)
	d.pull(t, d.hosts[0])
}

// fill begins to push the big image and returns when less than so many bytes are free.
// Docker tries the push again, and then says how it ended.
func (d *disk) fill(t *testing.T, what string, below int64) (pushed <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := d.hosts[0].dockerWithin(largeBound, "", "push", "--quiet", bigImage)
		done <- err
	}()
	must(t, until(3*time.Minute, what, func() (bool, string) {
		free, err := d.free()
		return err == nil && free < below, inMiB(free)
	}))
	return done
}

func (d *disk) free() (int64, error) {
	var s syscall.Statfs_t
	err := syscall.Statfs(d.dir, &s)
	return int64(s.Bavail) * s.Bsize, err
}

// refusesUploads wants a new upload to be refused, with the reason.
func (d *disk) refusesUploads(t *testing.T, status int, reason string) {
	t.Helper()
	client, err := newClient(d.hosts[0].certFile(), d.server.listen(registryPort))
	must(t, err)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+domain+"/v2/fleet/probe/blobs/uploads/", nil)
	must(t, err)
	req.SetBasicAuth(user, password)
	resp, err := client.RoundTrip(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != status || !strings.Contains(string(body), reason) {
		t.Errorf("an upload on the full disk: %s %s, want %d and %q", resp.Status, body, status, reason)
	}
}

// pushFails wants the big push to have failed for that, and nothing of it to be an image.
func (d *disk) pushFails(t *testing.T, pushed <-chan error, reason string) {
	t.Helper()
	err := <-pushed
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("the push of %d MiB on a disk of %d: %v, want %q", bigLayers*bigLayerSize>>20, diskBytes>>20, err, reason)
	}
	if _, err := d.hosts[0].docker("pull", "--quiet", bigImage); err == nil || !strings.Contains(err.Error(), "manifest unknown") {
		t.Errorf("pull of what was pushed in part: %v, want an unknown manifest", err)
	}
	if !d.server.proc.running() {
		t.Fatalf("the server has ended:\n%s", tail(d.server.log(), 20))
	}
	free, err := d.free()
	must(t, err)
	t.Logf("the push failed with %s free: %s", inMiB(free), reason)
}

// refusesRotation wants a rotation that cannot be recorded to change nothing.
func (d *disk) refusesRotation(t *testing.T) {
	t.Helper()
	before, err := d.state()
	must(t, err)
	_, err = d.server.command("ca", "rotate", "--yes")
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("a rotation without a byte for its record: %v", err)
	}
	after, err := d.state()
	must(t, err)
	if after != before {
		t.Errorf("the refused rotation has changed\n%s\nto\n%s", before, after)
	}
}

// state is what a rotation would change: what is wanted, served and under way, and the
// keys. What is known of the hosts changes by itself.
func (d *disk) state() (string, error) {
	st, err := d.server.status()
	if err != nil {
		return "", err
	}
	st.Hosts = nil
	said, err := json.Marshal(st)
	return string(said) + "\n" + directory(filepath.Join(d.server.dataDir, "state", "keys")), err
}

// makeRoom collects what the failed push has left, until pushes work again.
func (d *disk) makeRoom(t *testing.T) {
	t.Helper()
	var got struct {
		Bytes   int64
		Uploads int
	}
	must(t, d.server.json(&got, "registry", "gc", "--min-age", "0s"))
	t.Logf("collected %d abandoned uploads, %s", got.Uploads, inMiB(got.Bytes))
	if got.Uploads < 1 || got.Bytes < diskBytes/2 {
		t.Errorf("the failed push has left %+v, want most of the disk", got)
	}
	// Who had one of them open would keep its bytes: replicas are new, the server collects when it rests.
	must(t, until(30*time.Second, "the disk has room", func() (bool, string) {
		free, err := d.free()
		return err == nil && free > diskBytes/2, inMiB(free)
	}))
	h, archive := d.hosts[0], d.run.path("new.tar")
	must(t, writeImage(archive))
	if err := h.push(archive, loadedImage, newImage); err != nil {
		free, _ := d.free()
		said, _ := d.server.command("registry", "logs", "--tail", "30") // what there is
		t.Fatalf("%v\nfree are %s; the registry says:\n%s", err, inMiB(free), said)
	}
	_, err := h.docker("image", "rm", "--force", loadedImage) // or the pull would fetch nothing
	must(t, err)
	must(t, h.pull(newImage))
	d.pull(t, h)
}

func inMiB(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
