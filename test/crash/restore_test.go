package crash

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// leastRestore is the fewest points of a forced restore: the records that make it lead
// its fleet again, the plan, and two renames for each of four directories.
const leastRestore = 25

// TestRestore kills `trustcast restore --force` at each durable write and rename. What
// is there then, for the next command and for a server after it, is the old registry
// or the restored one, whole.
func TestRestore(t *testing.T) {
	restoreSeries(func(v *vault, restored bool) {
		must(v.t, v.judge(restored))
		v.serves(restored)
	}).run(t)
}

// TestRestoreThenServer is the same where the server is what looks at the directory
// first.
func TestRestoreThenServer(t *testing.T) {
	restoreSeries(func(v *vault, restored bool) {
		v.serves(restored)
		must(v.t, v.judge(restored))
	}).run(t)
}

// TestRestoreAgain is the same where whoever killed it repeats the command.
func TestRestoreAgain(t *testing.T) {
	restoreSeries(func(v *vault, _ bool) {
		if p := v.restore(crash{}); !p.cmd.ProcessState.Success() {
			v.t.Fatalf("restore again: %v\n%s", p.cmd.ProcessState, p.out)
		}
		must(v.t, v.judge(true))
	}).run(t)
}

// restoreSeries kills a restore at each point; then looks at what is there, which the
// plan on the disk says.
func restoreSeries(then func(v *vault, restored bool)) series {
	return series{
		least: leastRestore,
		find: func(t *testing.T, log string) []string {
			c := crash{log: log}
			v := newVault(t)
			if p := v.restore(c); !p.cmd.ProcessState.Success() {
				t.Fatalf("restore: %v\n%s", p.cmd.ProcessState, p.out)
			}
			must(t, v.judge(true))
			return c.passed()
		},
		strike: func(t *testing.T, c crash) bool {
			v := newVault(t)
			must(t, c.struck(v.restore(c)))
			_, err := os.Stat(filepath.Join(v.serverDir(), ".restore", "switch.json"))
			// The plan is removed when all is in its place.
			then(v, err == nil || strings.HasPrefix(c.at, "switch.json-2"))
			v.stop()
			return true
		},
	}
}

// vault is a site with a backup of one registry and another registry in its place.
type vault struct {
	*site
	file       string
	saved, now registryParts
}

// registryParts are what tells two registries from each other.
type registryParts struct{ fleet, ca, users, images string }

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{site: newSite(t, crashing)}
	v.file = filepath.Join(v.dir, "b.tar")
	v.saved = v.create("saved")
	_, err := v.trustcast("backup", v.file)
	must(t, err)
	must(t, os.RemoveAll(v.serverDir()))
	v.now = v.create("now")
	return v
}

// create makes a registry with a user and a blob of its own.
func (v *vault) create(name string) registryParts {
	v.t.Helper()
	_, err := v.trustcast(append(v.initArgs(), "--user", name)...)
	must(v.t, err)
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:])
	root := filepath.Join(v.serverDir(), "docker", "registry", "v2")
	for path, data := range map[string]string{
		filepath.Join(root, "blobs", "sha256", digest[:2], digest, "data"):             name,
		filepath.Join(root, "repositories", name, "_layers", "sha256", digest, "link"): "sha256:" + digest,
	} {
		must(v.t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(v.t, os.WriteFile(path, []byte(data), 0o600))
	}
	parts, err := v.parts()
	must(v.t, err)
	return parts
}

// restore runs `trustcast restore --force` to its end.
func (v *vault) restore(c crash) *process {
	v.t.Helper()
	argv := []string{v.programs + "/trustcast", "restore", "--force", v.file, "--data-dir", v.serverDir()}
	p, err := start("restore", v.env(c.env()...), argv, func(*process) {})
	must(v.t, err)
	v.close = append(v.close, p.kill)
	must(v.t, until("restore ends", func() (bool, string) { return p.ended(), p.out.String() }))
	return p
}

// serves starts the server, which must serve the one of the two registries.
func (v *vault) serves(restored bool) {
	v.t.Helper()
	if !v.startServer(crash{}) {
		v.t.Fatalf("the server does not start:\n%s", v.server.out)
	}
	_, err := v.await("it serves", func(st *pb.Status) bool {
		return st.GetRotation().GetFrozen() == "" && (st.GetFleetId() == v.saved.fleet) == restored
	})
	must(v.t, err)
}

// judge says why the directory is not one of the two, after any command has looked
// at it.
func (v *vault) judge(restored bool) error {
	check := filepath.Join(v.dir, "check.tar")
	if _, err := v.trustcast("backup", check); err != nil {
		return err
	}
	want := v.now
	if restored {
		want = v.saved
	}
	got, err := v.parts()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("restored %v: it is\n%+v, not\n%+v", restored, got, want)
	}
	fleet, err := fleetOf(check)
	if err != nil || fleet != want.fleet {
		return fmt.Errorf("the backup is of fleet %s, not %s (%w)", fleet, want.fleet, err)
	}
	_, err = os.Stat(filepath.Join(v.serverDir(), ".restore"))
	switch {
	case err == nil:
		return errors.New("something is left of the restore")
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return nil
}

func (v *vault) parts() (registryParts, error) {
	var control struct {
		Value struct {
			FleetID string `json:"fleet_id"`
		} `json:"value"`
	}
	data, err := os.ReadFile(v.record("control"))
	if err == nil {
		err = json.Unmarshal(data, &control)
	}
	ca, err2 := os.ReadFile(filepath.Join(v.serverDir(), "certs", "ca.crt"))
	users, err3 := os.ReadFile(filepath.Join(v.serverDir(), "auth", "htpasswd"))
	images, err4 := filepath.Glob(filepath.Join(v.serverDir(), "docker", "registry", "v2", "repositories", "*"))
	sort.Strings(images)
	return registryParts{control.Value.FleetID, string(ca), string(users), strings.Join(images, " ")}, errors.Join(err, err2, err3, err4)
}

// fleetOf reads the header of a backup.
func fleetOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	r := tar.NewReader(f)
	if _, err := r.Next(); err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	var h struct {
		FleetID string `json:"fleet_id"`
	}
	return h.FleetID, json.Unmarshal(data, &h)
}
