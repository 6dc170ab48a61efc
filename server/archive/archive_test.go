package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	from := planted(t)
	data, report := from.tar()
	to, header, read, err := unpack(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if header.Domain != "r.test:5000" || header.Generation != 3 || !header.Made.Equal(made) {
		t.Errorf("header %+v", header)
	}
	if report.Images != 5 || len(report.Damaged) != 0 || read.Images != report.Images || read.Files != report.Files {
		t.Errorf("written %+v, read %+v", report, read)
	}
	want := map[string]string{}
	for name, content := range from.files() {
		_, data, _ := strings.Cut(content, " ")
		want[name] = "644 " + data
	}
	for _, name := range []string{
		digestOf("garbage").blobPath(), repositoryPath("app") + "/_uploads/1/data",
		digestOf("x").linkPath(layersOf("app")) + ".1.tmp", digestOf("gone").linkPath(layersOf("app")),
	} {
		if _, ok := want[name]; !ok {
			t.Fatalf("%s was not planted", name)
		}
		delete(want, name)
	}
	for _, f := range smallFiles {
		mode := "600 "
		if f.Path == "certs/ca.crt" {
			mode = "644 "
		}
		want[f.Path] = mode + string(f.Data)
	}
	if d := cmp.Diff(want, to.files()); d != "" {
		t.Errorf("restored (-want +got):\n%s", d)
	}
}

func TestTheSameTwice(t *testing.T) {
	from := planted(t)
	a, _ := from.tar()
	b, _ := from.tar()
	if !bytes.Equal(a, b) {
		t.Error("two backups of the same differ")
	}
}

func TestWithoutImages(t *testing.T) {
	b := planted(t).backup()
	b.Header.WithoutImages = true
	var out bytes.Buffer
	if _, err := b.Write(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	to, header, _, err := unpack(t, out.Bytes())
	if err != nil || !header.WithoutImages {
		t.Fatalf("%+v, %v", header, err)
	}
	if got := slices.Sorted(maps.Keys(to.files())); len(got) != len(smallFiles) {
		t.Errorf("it has %v", got)
	}
}

// TestDamagedDataIsNamed: the rest of the backup is whole, and restores.
func TestDamagedDataIsNamed(t *testing.T) {
	damage := map[string]func(from tree, first digest){
		"its content has": func(from tree, first digest) { from.write(first.blobPath(), "first layer of appv1?") },
		"is missing":      func(from tree, first digest) { from.remove(first.blobPath()) },
		"is no part of":   func(from tree, first digest) { from.remove(first.linkPath(layersOf("app"))) },
		"it is no manifest": func(from tree, _ digest) {
			from.tag("app", "bad", from.revision("app", "no manifest"))
			from.remove(repositoryPath("app") + "/_manifests/tags/v1/current/link")
		},
	}
	for want, damage := range damage {
		t.Run(want, func(t *testing.T) {
			from := planted(t)
			_, first := from.image("app", "v1")
			damage(from, first)
			data, report := from.tar()
			if len(report.Damaged) != 1 || !strings.Contains(report.Damaged[0], want) || !strings.HasPrefix(report.Damaged[0], "app@sha256:") {
				t.Fatalf("reported: %q", report.Damaged)
			}
			to, _, read, err := unpack(t, data)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(report.Damaged, read.Damaged); d != "" {
				t.Errorf("read: %s", d)
			}
			if files := to.files(); len(files) < 20 || files[repositoryPath("app")+"/_manifests/tags/v1/current/link"] != "" {
				t.Errorf("restored %v", slices.Sorted(maps.Keys(files)))
			}
		})
	}
}

// TestUnreadable: a blob that has fewer bytes than it had when its size was read, and
// one that cannot be read at all.
func TestUnreadable(t *testing.T) {
	from := planted(t)
	_, first := from.image("app", "v1")
	_, gone := from.image("app", "v2")
	im, err := gather(t.Context(), from.dir)
	if err != nil {
		t.Fatal(err)
	}
	from.write(first.blobPath(), "less")
	from.remove(gone.blobPath())
	var out bytes.Buffer
	w := &writer{ctx: t.Context(), tar: tar.NewWriter(&out), progress: func(int64, int64) {}, buffer: make([]byte, 10)}
	for _, d := range []digest{first, gone} {
		if err := w.blob(im, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.tar.Flush(); err != nil { // it has all bytes that were promised
		t.Fatal(err)
	}
	lost := strings.Join(im.prune(), "; ")
	if strings.Count(lost, "app@") != 2 || !strings.Contains(lost, "cannot be read to its end (unexpected EOF)") || !strings.Contains(lost, "no such file") {
		t.Errorf("lost %s", lost)
	}
}

func TestADamagedUploadIsNamed(t *testing.T) {
	from := planted(t)
	from.write(from.layer("app", "nobody's yet").blobPath(), "damaged")
	_, report := from.tar()
	if len(report.Damaged) != 1 || !strings.HasPrefix(report.Damaged[0], "app: blob sha256:") {
		t.Errorf("reported: %q", report.Damaged)
	}
}

// TestPushedWhileListed: what comes between the listing of revisions and of what an
// index names is found.
func TestPushedWhileListed(t *testing.T) {
	from := planted(t)
	im, err := gather(t.Context(), from.dir)
	if err != nil {
		t.Fatal(err)
	}
	late, _ := from.image("app", "late")
	index := from.revision("app", indexOf(late))
	im.repos["app"].revisions[index] = true // seen late, while the image was passed already
	im.follow("app", index)
	if lost := im.prune(); len(lost) != 0 || !im.repos["app"].revisions[late] {
		t.Errorf("lost %v, has the late image: %v", lost, im.repos["app"].revisions[late])
	}
}

// TestRemovedWhileListed: an image that an operator deletes meanwhile is no damage.
func TestRemovedWhileListed(t *testing.T) {
	from := planted(t)
	d, first := from.image("app", "going")
	im, err := gather(t.Context(), from.dir)
	if err != nil {
		t.Fatal(err)
	}
	from.remove(d.linkPath(revisionsOf("app")))
	delete(im.sizes, first)
	if lost := im.prune(); len(lost) != 0 || im.repos["app"].tags["going"] != nil {
		t.Errorf("lost %v, the tag is there: %v", lost, im.repos["app"].tags["going"] != nil)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := planted(t).backup().Write(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	data, _ := planted(t).tar()
	if _, _, err := Unpack(ctx, bytes.NewReader(data), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("unpack: %v", err)
	}
}

func TestProgressEndsAtItsTotal(t *testing.T) {
	b := planted(t).backup()
	var last, total int64
	b.Progress = func(w, all int64) {
		if w < last || w > all {
			t.Errorf("%d of %d after %d", w, all, last)
		}
		last, total = w, all
	}
	r, err := b.Write(t.Context(), io.Discard)
	if err != nil || last != r.Bytes || total != r.Bytes {
		t.Errorf("ended at %d of %d, the report has %d (%v)", last, total, r.Bytes, err)
	}
}

func TestWriteRefusesForeignPaths(t *testing.T) {
	b := newTree(t).backup()
	b.Files = []File{{"../x", nil}}
	if _, err := b.Write(t.Context(), io.Discard); err == nil {
		t.Error("it wrote ../x")
	}
	if Takes("state/admin.sock") || Takes("certs/.x") || Takes(filepath.Join("state", "lock")) || !Takes("certs/domain.crt") {
		t.Error("Takes is wrong")
	}
}

// What containers leave among the images leads a backup nowhere.
func TestABackupFollowsNoLink(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a key of somebody"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func(from tree, image digest) error{
		"a repository": func(from tree, _ digest) error {
			return os.Symlink(filepath.Dir(secret), filepath.Join(from.dir, "docker/registry/v2/repositories/other"))
		},
		"a link": func(from tree, image digest) error {
			at := filepath.Join(from.dir, filepath.FromSlash(image.linkPath(revisionsOf("app"))))
			return errors.Join(os.Remove(at), os.Symlink(secret, at))
		},
		"a pipe": func(from tree, image digest) error {
			at := filepath.Join(from.dir, filepath.FromSlash(image.linkPath(revisionsOf("app"))))
			return errors.Join(os.Remove(at), syscall.Mkfifo(at, 0o600))
		},
		"a blob": func(from tree, image digest) error {
			at := filepath.Join(from.dir, filepath.FromSlash(image.blobPath()))
			return errors.Join(os.Remove(at), os.Symlink(secret, at))
		},
	} {
		from := planted(t)
		image, _ := from.image("app", "v1")
		if err := plant(from, image); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		report, err := from.backup().Write(t.Context(), &out)
		if err == nil && len(report.Damaged) == 0 {
			t.Errorf("%s: nothing is wrong with the backup", what)
		}
		if bytes.Contains(out.Bytes(), []byte("a key of somebody")) {
			t.Errorf("%s: the secret is in the backup", what)
		}
	}
}
