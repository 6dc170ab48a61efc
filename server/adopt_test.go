package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/plain"
)

const (
	oldDomain   = "registry.test"
	oldHtpasswd = "ci:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\nold:$apr1$abcdefgh$0123456789abcdefghijkl\n"
)

// tree is every file below dir, with its content, but for what the server made.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir() && name == "state":
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		data, err := os.ReadFile(path)
		files[name] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func oldRegistry(t *testing.T) (dir string, p plain.Pair) {
	t.Helper()
	p, err := plain.SelfSigned(plain.Options{}, oldDomain)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "old")
	if err := plain.Write(dir, p, oldHtpasswd, "team/app"); err != nil {
		t.Fatal(err)
	}
	return dir, p
}

// TestAdoptInPlace: nothing of the old registry is changed; what is taken over is told;
// and it is for once.
func TestAdoptInPlace(t *testing.T) {
	dir, p := oldRegistry(t)
	before := tree(t, dir)
	cfg := InitConfig{DataDir: filepath.Join(t.TempDir(), "data"), Domain: oldDomain, Aliases: []string{"other.test"}, User: "alice", Adopt: AdoptConfig{From: dir}}
	r, err := Init(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := r.Adopted
	if o.Dir != dir || o.Repositories != 1 || !slices.Equal(o.Users, []string{"ci"}) || len(o.Passed) != 1 || o.Passed[0].Name != "old" ||
		!o.Ends.Equal(p.Leaf.NotAfter) || !slices.Equal(o.Without, []string{"other.test:5000"}) || r.Password == "" {
		t.Errorf("%+v: %+v", r, o)
	}
	if link, err := os.Readlink(cfg.DataDir); err != nil || link != dir || !Initialized(cfg.DataDir) {
		t.Errorf("the data directory is no link to the data: %q, %v", link, err)
	}
	if r.Fingerprint != certs.FingerprintOf(p.Leaf) {
		t.Error("hosts are to trust something else than they do")
	}
	after := tree(t, dir)
	if after["auth/htpasswd.adopted"] != oldHtpasswd {
		t.Error("the lines that make no user are lost")
	}
	delete(after, "auth/htpasswd.adopted")
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("files %d, were %d", len(after), len(before))
	}
	if _, err := Init(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "holds a registry already") {
		t.Errorf("twice: %v", err)
	}
}

// TestAdoptAgain: an adoption that was cut off is repeated.
func TestAdoptAgain(t *testing.T) {
	dir, _ := oldRegistry(t)
	cfg := InitConfig{DataDir: dir, Domain: oldDomain, User: "alice", Adopt: AdoptConfig{From: dir}}
	if _, err := Init(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "state", "records", siteRecord+".json")); err != nil { // the last thing that is written
		t.Fatal(err)
	}
	r, err := Init(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Adopted.Users, []string{"ci"}) || len(r.Adopted.Passed) != 1 {
		t.Errorf("%+v", r.Adopted)
	}
}

// TestAdoptRefused: each reason, with what to do, and nothing was changed.
func TestAdoptRefused(t *testing.T) {
	ended, err := plain.SelfSigned(plain.Options{Now: time.Now().AddDate(-1, 0, 0)}, oldDomain)
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := plain.SelfSigned(plain.Options{CommonNameOnly: true}, oldDomain)
	if err != nil {
		t.Fatal(err)
	}
	other, err := plain.Company(plain.Options{}, false, oldDomain)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) func(*testing.T, string, *InitConfig) {
		return func(t *testing.T, dir string, _ *InitConfig) {
			path := filepath.Join(dir, filepath.FromSlash(name))
			err := os.Remove(path)
			if data != nil {
				err = os.WriteFile(path, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, c := range map[string]struct {
		spoil func(t *testing.T, dir string, cfg *InitConfig)
		says  string
	}{
		"nothing there": {func(_ *testing.T, dir string, cfg *InitConfig) { cfg.Adopt.From = dir + "-not" }, "is not there"},
		"no registry": {func(t *testing.T, _ string, cfg *InitConfig) {
			cfg.Adopt.From = t.TempDir()
			cfg.DataDir = cfg.Adopt.From
		}, "holds no registry"},
		"another data dir":     {func(t *testing.T, _ string, cfg *InitConfig) { cfg.DataDir = "/proc" }, "give another --data-dir"},
		"no such volume":       {func(_ *testing.T, _ string, cfg *InitConfig) { cfg.Adopt.From = "volume:trustcast-none" }, "ocker"},
		"no certificate":       {put("certs/domain.crt", nil), "there is no certs/domain.crt: copy"},
		"no key":               {put("certs/domain.key", nil), "there is no certs/domain.key: copy"},
		"ended":                {put("certs/domain.crt", ended.Cert), "ended on"},
		"a common name alone":  {put("certs/domain.crt", nameless.Cert), "subjectAltName"},
		"no issuer":            {put("certs/domain.crt", other.Cert), "is missing"},
		"another key":          {put("certs/domain.key", other.Key), "is not the key"},
		"an encrypted key":     {put("certs/domain.key", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")), "openssl pkey"},
		"garbage for a key":    {put("certs/domain.key", []byte("garbage")), "no private key"},
		"garbage for a CA":     {put("certs/ca.crt", []byte("garbage")), "certs/ca.crt"},
		"a user that is there": {func(_ *testing.T, _ string, cfg *InitConfig) { cfg.User = "ci" }, "leave --user out"},
		"another domain":       {func(_ *testing.T, _ string, cfg *InitConfig) { cfg.Domain = "other.test" }, "not for other.test"},
	} {
		t.Run(what, func(t *testing.T) {
			dir, _ := oldRegistry(t)
			cfg := InitConfig{DataDir: dir, Domain: oldDomain, Adopt: AdoptConfig{From: dir}}
			c.spoil(t, dir, &cfg)
			before := tree(t, dir)
			_, err := Init(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if _, err := os.Stat(filepath.Join(dir, "state")); err == nil || fmt.Sprint(tree(t, dir)) != fmt.Sprint(before) {
				t.Error("something was changed")
			}
		})
	}
}

// TestAdoptNewCA: images and users without the old pair, whose files are kept.
func TestAdoptNewCA(t *testing.T) {
	dir, p := oldRegistry(t)
	r, err := Init(t.Context(), InitConfig{DataDir: dir, Domain: oldDomain, Adopt: AdoptConfig{From: dir, NewCA: true}})
	if err != nil {
		t.Fatal(err)
	}
	files := tree(t, dir)
	if r.Adopted.Certificate != "" || files["certs/ca.crt.adopted"] != string(p.CA) || files["certs/ca.crt"] == string(p.CA) {
		t.Errorf("%+v", r.Adopted)
	}
}

// entry is one of an archive.
type entry struct {
	name string
	data string
	kind byte
}

func archiveOf(t *testing.T, zipped bool, entries ...entry) string {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Size: int64(len(e.data)), Mode: 0o644}
		if e.kind == tar.TypeSymlink || e.kind == tar.TypeLink {
			h.Linkname, h.Size, e.data = e.data, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data := out.Bytes()
	if zipped {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		data = packed.Bytes()
	}
	path := filepath.Join(t.TempDir(), "backup.tar")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// oldEntries are a registry's data as tar has them, below prefix.
func oldEntries(t *testing.T, prefix string) []entry {
	t.Helper()
	dir, _ := oldRegistry(t)
	var entries []entry
	for name, data := range tree(t, dir) {
		entries = append(entries, entry{prefix + name, data, tar.TypeReg})
	}
	return append(entries,
		entry{prefix + "docker/registry/v2/repositories/team/app/_manifests/", "", tar.TypeDir},
		entry{prefix + "docker/registry/v2/blobs/sha256/aa/aa/data", "blob", tar.TypeReg},
		entry{prefix + "README", "not ours", tar.TypeReg})
}

// TestAdoptArchive: a tar, with whatever stands before its names, in any packing, into
// an empty directory; cut off at any moment, it is repeated with the same one.
func TestAdoptArchive(t *testing.T) {
	for _, prefix := range []string{"", "./", "data/", "var/lib/registry/"} {
		data := filepath.Join(t.TempDir(), "data")
		cfg := InitConfig{DataDir: data, Domain: oldDomain, Adopt: AdoptConfig{From: archiveOf(t, prefix == "data/", oldEntries(t, prefix)...)}}
		r, err := Init(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%q: %v", prefix, err)
		}
		files := tree(t, data)
		if r.Adopted.Repositories != 1 || files["docker/registry/v2/blobs/sha256/aa/aa/data"] != "blob" || files["auth/htpasswd"] != oldHtpasswd || files["README"] != "" {
			t.Errorf("%q: %+v, %d files", prefix, r.Adopted, len(files))
		}
		for name := range files {
			if strings.HasPrefix(name, adoptingDir) {
				t.Errorf("%q: %s is left", prefix, name)
			}
		}
		if info, err := os.Stat(filepath.Join(data, "certs", "domain.key")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%q: the key's file: %v %v", prefix, info, err)
		}
	}
}

// TestAdoptArchiveAgain: what a crash leaves at each moment is taken up again.
func TestAdoptArchiveAgain(t *testing.T) {
	from := archiveOf(t, false, oldEntries(t, "")...)
	for what, crash := range map[string]func(t *testing.T, l layout, a *oldArchive){
		"while unpacking": func(t *testing.T, l layout, _ *oldArchive) {
			if err := os.MkdirAll(filepath.Join(l.dir, adoptingDir, "data", "docker", "half"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"when all is there": func(t *testing.T, l layout, a *oldArchive) {
			if err := a.unpack(l); err != nil {
				t.Fatal(err)
			}
		},
		"while moving": func(t *testing.T, l layout, a *oldArchive) {
			if err := a.unpack(l); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(l.dir, "certs"), filepath.Join(l.dir, adoptingDir, "data", "certs")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := layout{filepath.Join(t.TempDir(), "data")}
			a, _, err := readArchive(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.create(); err != nil {
				t.Fatal(err)
			}
			crash(t, l, a)
			if what != "while unpacking" {
				other := archiveOf(t, false, oldEntries(t, "")...)
				if _, err := Init(t.Context(), InitConfig{DataDir: l.dir, Domain: oldDomain, Adopt: AdoptConfig{From: other}}); err == nil || !strings.Contains(err.Error(), "another archive") {
					t.Errorf("with another archive: %v", err)
				}
			}
			if _, err := Init(t.Context(), InitConfig{DataDir: l.dir, Domain: oldDomain, Adopt: AdoptConfig{From: from}}); err != nil {
				t.Fatal(err)
			}
			files := tree(t, l.dir)
			if files["docker/registry/v2/blobs/sha256/aa/aa/data"] != "blob" || files["certs/domain.crt"] == "" || len(files) != 6 {
				t.Errorf("%d files", len(files))
			}
		})
	}
}

// TestAdoptBadArchive: what is not safe is refused as a whole.
func TestAdoptBadArchive(t *testing.T) {
	good := oldEntries(t, "")
	with := func(e ...entry) []entry { return append(slices.Clone(good), e...) }
	for what, c := range map[string]struct {
		entries []entry
		says    string
	}{
		"a name that leads out": {with(entry{"../../evil", "x", tar.TypeReg}), "leads out"},
		"an absolute name":      {with(entry{"/etc/passwd", "x", tar.TypeReg}), "leads out"},
		"a link among images":   {with(entry{"docker/registry/v2/link", "/etc", tar.TypeSymlink}), "neither a file"},
		"a link for a key":      {with(entry{"certs/domain.key", "/etc/shadow", tar.TypeLink}), "neither a file"},
		"a device":              {with(entry{"docker/registry/v2/null", "", tar.TypeChar}), "neither a file"},
		"two registries":        {append(with(), oldEntries(t, "other/")...), "not side by side"},
		"nothing of a registry": {[]entry{{"README", "x", tar.TypeReg}}, "holds no registry"},
	} {
		t.Run(what, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			_, err := Init(t.Context(), InitConfig{DataDir: data, Domain: oldDomain, Adopt: AdoptConfig{From: archiveOf(t, false, c.entries...)}})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
				t.Error("the data directory was made")
			}
		})
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), InitConfig{DataDir: full, Domain: oldDomain, Adopt: AdoptConfig{From: archiveOf(t, false, good...)}}); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("into a directory in use: %v", err)
	}
	path := archiveOf(t, false, good...)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), InitConfig{DataDir: filepath.Join(t.TempDir(), "data"), Domain: oldDomain, Adopt: AdoptConfig{From: path}}); err == nil || !strings.Contains(err.Error(), "no usable tar") {
		t.Errorf("half an archive: %v", err)
	}
}

// What somebody else prepared in a directory does not become the server's state.
func TestNobodyElsesDirectories(t *testing.T) {
	for what, prepare := range map[string]func(dir, elsewhere string) error{
		"state": func(dir, elsewhere string) error { return os.Symlink(elsewhere, filepath.Join(dir, "state")) },
		"certs": func(dir, elsewhere string) error { return os.Symlink(elsewhere, filepath.Join(dir, "certs")) },
		"auth":  func(dir, elsewhere string) error { return os.Symlink(elsewhere, filepath.Join(dir, "auth")) },
		"records": func(dir, elsewhere string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "state"), 0o700), os.Symlink(elsewhere, filepath.Join(dir, "state", "records")))
		},
	} {
		dir, elsewhere := t.TempDir(), t.TempDir()
		if err := prepare(dir, elsewhere); err != nil {
			t.Fatal(err)
		}
		if err := (layout{dir}).create(); err == nil || !strings.Contains(err.Error(), "no directory of its own") {
			t.Errorf("%s is a link: %v", what, err)
		}
		if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
			t.Errorf("%s: written elsewhere: %v, %v", what, entries, err)
		}
	}
	if os.Geteuid() != 0 {
		return // only root can take a directory from somebody
	}
	dir := t.TempDir()
	for _, err := range []error{os.Mkdir(filepath.Join(dir, "state"), 0o777), os.Chown(filepath.Join(dir, "state"), 1000, 1000), os.Chown(dir, 1000, 1000), os.Chmod(dir, 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := (layout{dir}).create(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "state")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Sys().(*syscall.Stat_t).Uid != 0 || info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s is %d's, %v", path, info.Sys().(*syscall.Stat_t).Uid, info.Mode())
		}
	}
}
