package direct

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// largestKept manifest (bytes); others are the engine's. Those of images have
	// some thousand, indexes of many platforms ten times that.
	largestKept = 128 << 10
	// mostKept bounds all contents together (bytes).
	mostKept = 16 << 20
	// mostManifests bounds their number.
	mostManifests = 10_000
)

// manifest is a content that distribution would serve under its digest.
type manifest struct {
	digest, etag, mediaType, length string
	content                         []byte
}

// manifests are contents by digest, those used last.
type manifests struct {
	mu   *sync.Mutex
	kept *simplelru.LRU[digest, *manifest]
	size *int
}

func newManifests() manifests {
	size := 0
	kept, err := simplelru.NewLRU(mostManifests, func(_ digest, m *manifest) { size -= len(m.content) })
	if err != nil {
		panic(err) // a number above 0 is no error
	}
	return manifests{&sync.Mutex{}, kept, &size}
}

func (m manifests) get(d digest) *manifest {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, _ := m.kept.Get(d)
	return found
}

func (m manifests) keep(d digest, content *manifest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept.Contains(d) {
		return
	}
	m.kept.Add(d, content)
	*m.size += len(content.content)
	for *m.size > mostKept {
		m.kept.RemoveOldest()
	}
}

// manifest answers with a manifest.
func (d *Reads) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) bool {
	asked, byDigest := parseDigest(reference)
	if !byDigest {
		var known bool
		if !isTag(reference) {
			return false
		}
		if asked, known = d.files.tag(repository, reference); !known {
			return false
		}
	}
	if !d.files.hasManifest(repository, asked) {
		return false
	}
	m := d.content(asked)
	if m == nil || !accepts(r, m.mediaType, byDigest) {
		return false
	}
	header := d.begin(w)
	if tags := r.Header["If-None-Match"]; slices.Contains(tags, m.digest) || slices.Contains(tags, m.etag) {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	header["Content-Type"] = []string{m.mediaType}
	header["Content-Length"] = []string{m.length}
	header["Docker-Content-Digest"] = []string{m.digest}
	header["Etag"] = []string{m.etag}
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return true
	}
	_, _ = w.Write(m.content) // a client that went away cannot be told
	return true
}

// accepts says whether a client plainly takes a type; distribution refuses or turns
// into another what a client does not take.
func accepts(r *http.Request, mediaType string, byDigest bool) bool {
	if mediaType == schema2.MediaTypeManifest || mediaType == manifestlist.MediaTypeManifestList && byDigest {
		return true // served to everybody
	}
	for _, value := range r.Header["Accept"] {
		for one := range strings.SplitSeq(value, ",") {
			if strings.TrimSpace(one) == mediaType {
				return true
			}
		}
	}
	return false
}

// content returns what a digest stands for, or nil when it is not there or is not
// plainly a manifest.
func (d *Reads) content(asked digest) *manifest {
	if m := d.manifests.get(asked); m != nil {
		if size, there := d.files.size(asked); !there || size != int64(len(m.content)) {
			return nil
		}
		return m
	}
	file, size, err := d.files.open(asked)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }() // nothing was written
	if size > largestKept {
		return nil
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(file, content); err != nil {
		return nil
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != string(asked) {
		return nil
	}
	mediaType, ok := typeOf(content)
	if !ok {
		return nil
	}
	m := &manifest{
		digest: asked.String(), etag: `"` + asked.String() + `"`, mediaType: mediaType,
		length: strconv.Itoa(len(content)), content: content,
	}
	d.manifests.keep(asked, m)
	return m
}

// typeOf returns the type that distribution serves a content as, by its own code.
func typeOf(content []byte) (mediaType string, ok bool) {
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if json.Unmarshal(content, &head) != nil || head.SchemaVersion != 2 {
		return "", false
	}
	candidates := []string{head.MediaType}
	switch head.MediaType {
	case schema2.MediaTypeManifest, manifestlist.MediaTypeManifestList, v1.MediaTypeImageManifest, v1.MediaTypeImageIndex:
	case "":
		candidates = []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest}
	default:
		return "", false
	}
	for _, candidate := range candidates {
		m, _, err := distribution.UnmarshalManifest(candidate, content)
		if err != nil {
			continue
		}
		if index, is := m.(*ocischema.DeserializedImageIndex); is && head.MediaType == "" && index.Manifests == nil {
			continue
		}
		mediaType, payload, err := m.Payload()
		return mediaType, err == nil && string(payload) == string(content)
	}
	return "", false
}
