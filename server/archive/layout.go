package archive

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync"
)

// registryRoot is where distribution keeps images under a data directory.
const registryRoot = "docker/registry/v2"

const (
	component  = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	hexDigits  = `(?:[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})`
	algorithm  = `sha(?:256|384|512)`
	tagName    = `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
	plainName  = `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
	recordName = `[a-z0-9][a-z0-9-]*`
)

// kind is one of the kinds of files that a backup has.
type kind struct {
	paths func() *regexp.Regexp
	// limit of its size (bytes); 0: none.
	limit int64
	mode  fs.FileMode
}

func (k kind) octal() string { return fmt.Sprintf("%04o", k.mode) }

// kinds are all that may be in a backup. Modes are given here and not by what was
// read, so that a foreign tar cannot publish a key.
var kinds = []kind{
	{exactly(`state/records/` + recordName + `(?:/` + recordName + `)?\.json`), 4 << 20, 0o600},
	{exactly(`state/keys/[0-9a-f]{64}\.key`), 64 << 10, 0o600},
	{exactly(`auth/` + plainName), 16 << 20, 0o600},
	{exactly(`certs/` + plainName + `\.key`), 64 << 10, 0o600},
	{exactly(`certs/` + plainName), 1 << 20, 0o644},
	{exactly(registryRoot + `/blobs/` + algorithm + `/[0-9a-f]{2}/` + hexDigits + `/data`), 0, 0o644},
	{exactly(registryRoot + `/repositories/` + component + `(?:/` + component + `)*/(?:` +
		`_layers/` + algorithm + `/` + hexDigits + `|` +
		`_manifests/revisions/` + algorithm + `/` + hexDigits + `|` +
		`_manifests/tags/` + tagName + `/(?:current|index/` + algorithm + `/` + hexDigits + `)` +
		`)/link`), 256, 0o644},
}

// exactly compiles a pattern when something is first compared with it: backups alone
// need it, and each command would pay a megabyte for it when it starts.
func exactly(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^` + pattern + `$`) })
}

var (
	validComponent = exactly(component)
	validTag       = exactly(tagName)
	validDigest    = exactly(`(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})`)
)

// kindOf finds the kind of a path; a path of no kind does not belong in a backup.
func kindOf(name string) (kind, bool) {
	if path.Clean(name) != name {
		return kind{}, false
	}
	for _, k := range kinds {
		if k.paths().MatchString(name) {
			return k, true
		}
	}
	return kind{}, false
}

// dirMode is for the directory at a path: as Init and distribution make them.
func dirMode(name string) fs.FileMode {
	first, _, _ := strings.Cut(name, "/")
	if first == "state" || first == "auth" {
		return 0o700
	}
	return 0o755
}

// digest is algorithm:hex, checked.
type digest string

func (d digest) parts() (algorithm, hex string) {
	algorithm, hex, _ = strings.Cut(string(d), ":")
	return algorithm, hex
}

// blobPath is where the blob of a digest is.
func (d digest) blobPath() string {
	algorithm, hex := d.parts()
	return path.Join(registryRoot, "blobs", algorithm, hex[:2], hex, "data")
}

// linkPath is the link of a digest in a directory of links.
func (d digest) linkPath(dir string) string {
	algorithm, hex := d.parts()
	return path.Join(dir, algorithm, hex, "link")
}

func repositoryPath(name string) string { return path.Join(registryRoot, "repositories", name) }

// Takes says whether a file at a path under the data directory can be in a backup.
func Takes(name string) bool {
	_, ok := kindOf(name)
	return ok
}
