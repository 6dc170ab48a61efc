package doctor

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/internal/foreign"
)

// mend is the next step for files of ours.
const mend = "trustcast-agent doctor --fix"

// asRoot is it where this user may not look.
const asRoot = "run it as root"

// directory says which directory the runtime uses for a name, and what is wrong in it.
func (e *exam) directory(r runtime, name string, bypassed bool) (used string, c *contents) {
	ours := filepath.Join(r.ours, name)
	for _, dir := range r.candidates(name) {
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(dir); err != nil {
				continue
			}
		}
		used = dir
		break
	}
	switch {
	case used == "":
		fix := mend
		if !e.Registry.Joined {
			fix = ""
		}
		e.add("files.directory", Warn, r.title, fix, "%s has no directory for this registry: its CA belongs into %s, which the agent makes", r.title, ours)
		e.spelling(r, name)
		return "", &contents{}
	case used != ours && e.Registry.Joined && !e.installedIn(used):
		e.add("files.directory", Warn, r.title, e.unhide(used, ours), "%s uses %s, and not %s, where our CA is put: the first that is there counts, also an empty one", r.title, used, ours)
	default:
		e.ok("files.directory", r.title, "%s uses %s", r.title, used)
	}
	c = r.read(used)
	if c.many {
		e.add("files.unseen", Warn, used, "remove what no runtime needs from "+quote(used), "%s has more than %d files, or certificates of more than %d bytes: not all were looked at", used, foreign.MostEntries, mostBytes)
	}
	if c.blind {
		e.add("files.unseen", Warn, used, asRoot, "not everything in %s can be looked at by this user", used)
	}
	for _, f := range c.faults {
		e.fault(r, f, bypassed)
	}
	if c.unverified {
		e.add("trust.insecure", Warn, filepath.Join(used, "hosts.toml"), "remove its skip_verify", "has skip_verify: %s verifies nothing", r.title)
	}
	e.bundle(used, c)
	e.foreign(r, c)
	e.modes(r, used, c)
	e.spelling(r, name)
	return used, c
}

// unhide is what to do about a directory that is used instead of ours.
func (e *exam) unhide(used, ours string) string {
	if entries, _, err := foreign.ReadDir(used); err == nil && len(entries) == 0 {
		return "rmdir " + quote(used)
	}
	return "ln -s " + quote(e.fileIn(ours)) + " " + quote(filepath.Join(used, "trustcast-ca.crt")) + "   # or remove " + quote(used)
}

// fileIn is our file in a directory.
func (e *exam) fileIn(dir string) string {
	for _, f := range e.Registry.Files {
		if filepath.Dir(f) == dir {
			return f
		}
	}
	return filepath.Join(dir, "ca.crt")
}

// installedIn says whether we have a file there.
func (e *exam) installedIn(dir string) bool {
	return slices.ContainsFunc(e.Registry.Files, func(f string) bool { return filepath.Dir(f) == dir })
}

func (e *exam) owns(path string) bool { return slices.Contains(e.Registry.Files, path) }

func (e *exam) fault(r runtime, f fault, bypassed bool) {
	state, effect := Warn, ""
	switch {
	case f.breaks && bypassed:
		effect = "; every pull would fail over it, if " + r.title + " verified anything"
	case f.breaks:
		state, effect = Fail, "; every pull by "+r.title+" fails over it"
	}
	fix := f.fix
	if e.owns(f.path) && f.id != "files.folder" && f.id != "files.special" {
		fix = mend
	}
	e.add(f.id, state, f.path, fix, "%s %s%s", f.path, f.text, effect)
}

// bundle says whether all of what the server wants is in the directory that is used.
func (e *exam) bundle(used string, c *contents) {
	b := e.Registry.Bundle
	if !e.Registry.Joined || c.blind || c.many {
		return
	}
	if len(b.Roots) == 0 {
		e.add("files.bundle", Warn, used, "trustcast-agent run", "this host has joined, but has not got the CA yet")
		return
	}
	missing := 0
	for _, root := range b.Roots {
		if !slices.ContainsFunc(c.roots, root.Equal) {
			missing++
		}
	}
	if missing > 0 {
		e.add("files.bundle", Warn, used, mend, "%d of the %d certificates of our bundle (generation %d) are not in %s", missing, len(b.Roots), b.Generation, used)
		return
	}
	for _, path := range e.Registry.Files {
		if filepath.Dir(path) != used {
			continue
		}
		if err := e.asWritten(path); err != nil {
			e.add("files.bundle", Warn, path, mend, "%s is not as the agent wrote it: %v", path, err)
			return
		}
	}
	e.ok("files.bundle", used, "our bundle is in it (generation %d)", b.Generation)
}

// asWritten says in what a file of ours is not as it was written; runtimes may yet find
// in it what they need.
func (e *exam) asWritten(path string) error {
	data, _, err := foreign.ReadFile(path)
	if err != nil {
		return err
	}
	roots, err := certs.ParsePEM(data)
	if err == nil && certs.FingerprintOf(roots...) != e.Registry.Bundle.Fingerprint() {
		err = errors.New("it holds other certificates than the server wants")
	}
	return err
}

// foreign says what else is trusted for this registry's name.
func (e *exam) foreign(r runtime, c *contents) {
	if !e.Registry.Joined {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(c.files)) {
		if e.owns(path) {
			continue
		}
		if strings.HasPrefix(filepath.Base(path), ".") {
			e.add("files.leftover", Warn, path, remove(path), "%s looks like a temporary file that somebody left, and %s reads it all the same", path, r.title)
		}
		for _, cert := range c.files[path] {
			if slices.ContainsFunc(e.Registry.Bundle.Roots, cert.Equal) {
				continue
			}
			what := "does not come from the server"
			if e.Now().After(cert.NotAfter) {
				what = "ended on " + day(cert)
			}
			e.add("files.foreign", Warn, path, "if it is an old CA of this registry: "+remove(path),
				"%s makes %s trust %q as well, which %s", path, r.title, cert.Subject.CommonName, what)
		}
	}
}

func day(cert *x509.Certificate) string { return cert.NotAfter.UTC().Format("2006-01-02") }

// modes says when others may change what is trusted, or may not read it, and what a
// killed write left.
func (e *exam) modes(r runtime, used string, c *contents) {
	paths := append([]string{used}, slices.Sorted(maps.Keys(c.files))...)
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		need, want := fs.FileMode(0o004), "0644"
		if info.IsDir() {
			need, want = 0o005, "0755"
		}
		fix := unlinked(path, "chmod "+want+" ")
		if e.owns(path) {
			fix = mend
		}
		uid, known := ownerOf(info)
		switch {
		case info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
			e.add("files.mode", Warn, path, fix, "%s may be changed by others (%v): they decide what this host trusts", path, info.Mode())
		case info.Mode()&need != need:
			e.add("files.mode", Warn, path, fix, "%s cannot be read by everybody (%v): runtimes without root do not see it", path, info.Mode())
		case known && uid != 0 && uid != os.Geteuid() && (r.user == "" || uid != r.uid()):
			e.add("files.owner", Warn, path, unlinked(path, "chown root: "), "%s belongs to user %d, who decides what this host trusts", path, uid)
		}
	}
	for _, f := range e.Registry.Files {
		if filepath.Dir(f) != used {
			continue
		}
		for _, left := range leftovers(used, filepath.Base(f)) {
			fix := mend
			if r.place.Home != "" {
				fix = remove(left)
			}
			e.add("files.leftover", Warn, left, fix, "%s was left by a write that was killed; no runtime reads it", left)
		}
	}
}

// leftovers are the temporary files of durable writes of a target.
func leftovers(dir, target string) (all []string) {
	entries, _, err := foreign.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if durable.IsTemporary(entry.Name(), target) {
			all = append(all, filepath.Join(dir, entry.Name()))
		}
	}
	return all
}

// spelling finds directories that were meant for this registry, and that nothing reads
// for its names.
func (e *exam) spelling(r runtime, name string) {
	host, _, _ := strings.Cut(name, ":")
	entries, _, err := foreign.ReadDir(r.ours)
	if err != nil {
		return
	}
	var right []string
	for _, n := range e.Registry.Names {
		right = append(right, n.Dirs()...)
	}
	for _, entry := range entries {
		is := entry.Name()
		lower := strings.ToLower(is)
		for _, prefix := range []string{"https:", "http:"} {
			lower = strings.TrimPrefix(lower, prefix)
		}
		path := filepath.Join(r.ours, is)
		meant, after, port := strings.Cut(strings.Replace(lower, "_", ":", 1), ":")
		if meant != host || slices.Contains(right, is) || slices.Contains(r.candidates(name), path) {
			continue
		}
		held, _, err := foreign.ReadDir(path)
		if err != nil || !slices.ContainsFunc(held, func(f os.DirEntry) bool { return filepath.Ext(f.Name()) == ".crt" }) {
			continue
		}
		if n, err := certs.ParseName(is, certs.DefaultPort); err == nil && port && after != "443" && n.String() == is {
			continue // another registry on this machine
		}
		e.add("files.spelling", Warn, path, "mv "+quote(path)+"/*.crt "+quote(filepath.Join(r.ours, name))+"/   # if they are for this registry", "nothing reads %s for images called %s/…", path, name)
	}
}
