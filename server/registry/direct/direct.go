// Package direct answers what clients of a registry read most, manifests and blobs,
// straight from the registry's files, without an engine.
//
// It answers exactly as distribution does or leaves the request to it: what is odd,
// missing or refused is the engine's to say. Links are read at each request, so that
// a tag that moved and an image that was deleted count at once, whoever did it. Only
// the content of manifests is remembered, which never changes under its digest.
package direct

import (
	"net/http"
	"path/filepath"
	"strings"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

// Reads answers from the files of a registry. Its methods are safe for concurrent
// use.
type Reads struct {
	files     files
	headers   http.Header // the operator's, for each answer
	manifests manifests
}

// New returns one for a data directory, in which others may write. It is nil, and
// answers nothing, when the registry is told to do something with reads that only an
// engine does, see parameters.Set.PlainReads. Close it.
func New(root string, p *parameters.Set) *Reads {
	headers, plain := p.PlainReads()
	if !plain {
		return nil
	}
	return &Reads{files: files{root: filepath.Join(root, top)}, headers: headers, manifests: newManifests()}
}

// Close closes what it has open. No request may be under way.
func (d *Reads) Close() error {
	if d == nil {
		return nil
	}
	return d.files.close()
}

// Answer answers a request, or returns false with nothing done.
func (d *Reads) Answer(w http.ResponseWriter, r *http.Request) bool {
	if d == nil || r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.RawQuery != "" || r.URL.RawPath != "" {
		return false
	}
	if r.URL.Path == "/v2/" {
		d.base(w)
		return true
	}
	repository, kind, reference := split(r.URL.Path)
	switch kind {
	case "manifests":
		return d.manifest(w, r, repository, reference)
	case "blobs":
		return d.blob(w, r, repository, reference)
	}
	return false
}

// base says that this is a registry.
func (d *Reads) base(w http.ResponseWriter) {
	const empty = "{}"
	header := d.begin(w)
	header["Content-Type"] = []string{"application/json"}
	header["Content-Length"] = []string{"2"}
	_, _ = w.Write([]byte(empty)) // a client that went away cannot be told
}

// begin sets what each answer has.
func (d *Reads) begin(w http.ResponseWriter) http.Header {
	header := w.Header()
	header["Docker-Distribution-Api-Version"] = []string{"registry/2.0"}
	for name, values := range d.headers {
		header[name] = append(header[name], values...)
	}
	return header
}

// split takes a path apart, or returns an empty kind for one that is not plainly a
// manifest's or a blob's.
func split(path string) (repository, kind, reference string) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return "", "", ""
	}
	at := strings.LastIndexByte(rest, '/')
	if at < 0 {
		return "", "", ""
	}
	rest, reference = rest[:at], rest[at+1:]
	at = strings.LastIndexByte(rest, '/')
	if at < 0 {
		return "", "", ""
	}
	repository, kind = rest[:at], rest[at+1:]
	if !plainName(repository) {
		return "", "", ""
	}
	return repository, kind, reference
}

// longestName is distribution's limit for a repository's.
const longestName = 255

// plainName says whether a name is surely a repository's: parts of small letters and
// digits with single dots, dashes or underlines between them. Some that it takes for
// odd are good ones, too.
func plainName(name string) bool {
	if len(name) > longestName {
		return false
	}
	letter := false // the last one was a letter or digit
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			letter = true
		case (c == '.' || c == '-' || c == '_' || c == '/') && letter:
			letter = false
		default:
			return false
		}
	}
	return letter
}

// longestTag is the specification's limit.
const longestTag = 128

// isTag says whether a reference is a tag.
func isTag(reference string) bool {
	if reference == "" || len(reference) > longestTag {
		return false
	}
	for i := range len(reference) {
		switch c := reference[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case (c == '.' || c == '-') && i > 0:
		default:
			return false
		}
	}
	return true
}

// digest is a SHA-256 in hex; registries that use another one are the engine's.
type digest string

const algorithm = "sha256:"

// parseDigest returns the hex of a digest as it is written in names and links.
func parseDigest(text string) (digest, bool) {
	hex, ok := strings.CutPrefix(text, algorithm)
	if !ok || len(hex) != 64 {
		return "", false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return digest(hex), true
}

// String is the digest with its algorithm.
func (d digest) String() string { return algorithm + string(d) }
