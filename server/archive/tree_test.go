package archive

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree is a data directory that is filled as distribution fills it.
type tree struct {
	t   testing.TB
	dir string
}

// newTree makes an empty one, in memory where that can be had: hundreds are made.
func newTree(t testing.TB) tree {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "archive")
	if err != nil {
		return tree{t, t.TempDir()}
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return tree{t, dir}
}

func (tr tree) path(name string) string { return filepath.Join(tr.dir, filepath.FromSlash(name)) }

func (tr tree) write(name, data string) {
	tr.t.Helper()
	if err := os.MkdirAll(filepath.Dir(tr.path(name)), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(tr.path(name), []byte(data), 0o600); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) remove(name string) {
	tr.t.Helper()
	if err := os.Remove(tr.path(name)); err != nil {
		tr.t.Fatal(err)
	}
}

func digestOf(data string) digest {
	sum := sha256.Sum256([]byte(data))
	return digest("sha256:" + hex.EncodeToString(sum[:]))
}

// blob puts one in the store, a layer in a repository as well.
func (tr tree) blob(data string) digest {
	d := digestOf(data)
	tr.write(d.blobPath(), data)
	return d
}

func (tr tree) layer(repo, data string) digest {
	d := tr.blob(data)
	tr.write(d.linkPath(layersOf(repo)), string(d))
	return d
}

func (tr tree) revision(repo, manifest string) digest {
	d := tr.blob(manifest)
	tr.write(d.linkPath(revisionsOf(repo)), string(d))
	return d
}

func (tr tree) tag(repo, name string, d digest) {
	dir := repositoryPath(repo) + "/_manifests/tags/" + name
	tr.write(d.linkPath(dir+"/index"), string(d))
	tr.write(dir+"/current/link", string(d))
}

func imageOf(config digest, layers ...digest) string {
	var list []string
	for _, l := range layers {
		list = append(list, fmt.Sprintf(`{"digest":%q}`, l))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q},"layers":[%s,{"digest":"sha256:%064d","urls":["https://elsewhere.test"]}]}`, config, strings.Join(list, ","), 0)
}

func indexOf(manifests ...digest) string {
	var list []string
	for _, m := range manifests {
		list = append(list, fmt.Sprintf(`{"digest":%q}`, m))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, strings.Join(list, ","))
}

// image pushes one of two layers with a tag and returns it and its first layer.
func (tr tree) image(repo, tag string) (manifest, first digest) {
	first = tr.layer(repo, "first layer of "+repo+tag)
	manifest = tr.revision(repo, imageOf(tr.layer(repo, "config of "+repo+tag), first, tr.layer(repo, strings.Repeat("shared", 1000))))
	tr.tag(repo, tag, manifest)
	return manifest, first
}

// planted is a registry with some of everything, beside what no backup takes.
func planted(t testing.TB) tree {
	tr := newTree(t)
	a, _ := tr.image("app", "v1")
	b, _ := tr.image("app", "v2")
	tr.tag("app", "latest", a)
	tr.tag("app", "latest", b) // which leaves v1 in its index
	tr.tag("app", "multi", tr.revision("app", indexOf(a, b)))
	tr.image("team/with-dash/deep_er", "1.0")
	tr.revision("app", `{"schemaVersion":1,"fsLayers":[{"blobSum":"`+string(tr.layer("app", "old"))+`"}]}`)
	sum := sha512.Sum512([]byte("other digest"))
	long := digest("sha512:" + hex.EncodeToString(sum[:]))
	tr.write(long.blobPath(), "other digest")
	tr.write(long.linkPath(layersOf("app")), string(long))

	tr.blob("garbage")
	tr.write(repositoryPath("app")+"/_uploads/1/data", "half")
	tr.write(digestOf("x").linkPath(layersOf("app"))+".1.tmp", "half")
	tr.write(digestOf("gone").linkPath(layersOf("app")), string(digestOf("gone"))) // collected
	return tr
}

var made = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

var smallFiles = []File{
	{"state/records/site.json", []byte(`{"format":1}`)}, {"state/records/hosts/1f.json", []byte("{}")},
	{"state/keys/" + strings.Repeat("ab", 32) + ".key", []byte("secret")}, {"auth/htpasswd", []byte("ci:x\n")}, {"certs/ca.crt", []byte("PEM")},
}

func (tr tree) backup() Backup {
	return Backup{Header: Header{Version: "test", Made: made, Domain: "r.test:5000", FleetID: "f", Generation: 3}, Files: smallFiles, Dir: tr.dir}
}

func (tr tree) tar() ([]byte, Report) {
	tr.t.Helper()
	var out bytes.Buffer
	r, err := tr.backup().Write(tr.t.Context(), &out)
	if err != nil {
		tr.t.Fatal(err)
	}
	return out.Bytes(), r
}

// files are all regular files under the directory, with content and permissions.
func (tr tree) files() map[string]string {
	tr.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(tr.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(tr.dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		out[filepath.ToSlash(rel)] = fmt.Sprintf("%o %s", info.Mode(), data)
		return err
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return out
}

func unpack(t testing.TB, data []byte) (tree, Header, Report, error) {
	t.Helper()
	to := newTree(t)
	h, r, err := Unpack(t.Context(), bytes.NewReader(data), to.dir)
	return to, h, r, err
}
