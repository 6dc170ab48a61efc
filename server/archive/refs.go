package archive

import (
	"encoding/json"
	"fmt"
)

// maxManifest bounds a manifest that is read for what it names (bytes);
// distribution takes 4 MiB at most.
const maxManifest = 8 << 20

// refs is what a manifest names: the blobs that it cannot do without, and other
// manifests, which an index may name without having them.
type refs struct{ blobs, manifests []digest }

// descriptor is the part of one that counts here.
type descriptor struct {
	Digest string   `json:"digest"`
	URLs   []string `json:"urls"`
}

// readRefs reads a manifest: an image or an index, of Docker or OCI, or one of
// Docker's first kind.
func (im *images) readRefs(d digest) (refs, error) {
	data, err := im.dir.Read(inside(d.blobPath()), maxManifest)
	if err != nil {
		return refs{}, err
	}
	return parseRefs(data)
}

func parseRefs(data []byte) (refs, error) {
	var m struct {
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
		Blobs     []descriptor `json:"blobs"`
		Manifests []descriptor `json:"manifests"`
		FSLayers  []struct {
			BlobSum string `json:"blobSum"`
		} `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return refs{}, fmt.Errorf("it is no manifest (%w)", err)
	}
	var blobs []descriptor
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	blobs = append(append(blobs, m.Layers...), m.Blobs...)
	for _, l := range m.FSLayers {
		blobs = append(blobs, descriptor{Digest: l.BlobSum})
	}
	var r refs
	for _, b := range blobs {
		if len(b.URLs) > 0 {
			continue // it is fetched from elsewhere
		}
		if !validDigest().MatchString(b.Digest) {
			return refs{}, fmt.Errorf("it names %q, which is no digest", b.Digest)
		}
		r.blobs = append(r.blobs, digest(b.Digest))
	}
	for _, d := range m.Manifests {
		if !validDigest().MatchString(d.Digest) {
			return refs{}, fmt.Errorf("it names %q, which is no digest", d.Digest)
		}
		r.manifests = append(r.manifests, digest(d.Digest))
	}
	return r, nil
}
