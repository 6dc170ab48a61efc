package archive

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// lacks says what keeps a manifest from being pulled; "" for nothing. An index may
// lack images: clients pull the others.
func (im *images) lacks(name string, d digest) string {
	r := im.repos[name]
	if reason := im.broken(d); reason != "" {
		return "its manifest " + reason
	}
	for _, b := range r.refs[d].blobs {
		reason := im.broken(b)
		if reason == "" && !r.layers[b] {
			reason = "is no part of the repository"
		}
		if reason != "" {
			return fmt.Sprintf("blob %s %s", b, reason)
		}
	}
	return ""
}

func (im *images) broken(d digest) string {
	if reason := im.damaged[d]; reason != "" {
		return "is damaged: " + reason
	}
	if _, ok := im.sizes[d]; !ok {
		return "is missing"
	}
	return ""
}

// prune drops what cannot be pulled: images that lack something, which it returns
// in words, then tags and layers that name nothing any more. An image that was
// removed while this was read is no loss.
func (im *images) prune() (lost []string) {
	said := map[digest]bool{}
	for _, name := range im.names() {
		r := im.repos[name]
		for _, d := range slices.Sorted(maps.Keys(r.revisions)) {
			reason := im.lacks(name, d)
			if reason == "" {
				continue
			}
			delete(r.revisions, d)
			if im.linked(revisionsOf(name), d) {
				lost = append(lost, fmt.Sprintf("%s@%s%s: %s", name, d, r.tagged(d), reason))
				for _, b := range append(r.refs[d].blobs, d) {
					said[b] = true
				}
			}
		}
		for t, tagged := range r.tags {
			if !r.revisions[tagged.current] {
				delete(r.tags, t)
				continue
			}
			maps.DeleteFunc(tagged.index, func(d digest, _ bool) bool { return !r.revisions[d] })
		}
		for _, d := range slices.Sorted(maps.Keys(r.layers)) {
			if im.damaged[d] != "" && !said[d] {
				lost = append(lost, fmt.Sprintf("%s: blob %s %s", name, d, im.broken(d)))
			}
		}
		maps.DeleteFunc(r.layers, func(d digest, _ bool) bool { return im.broken(d) != "" })
	}
	return lost
}

// tagged names the tags of a manifest.
func (r *repository) tagged(d digest) string {
	var tags []string
	for t, tagged := range r.tags {
		if tagged.current == d {
			tags = append(tags, t)
		}
	}
	if len(tags) == 0 {
		return ""
	}
	slices.Sort(tags)
	return " (" + strings.Join(tags, ", ") + ")"
}

// blobs are those that revisions and layers name and that are there, sorted.
func (im *images) blobs() []digest { return slices.Sorted(maps.Keys(im.sizes)) }

// count of manifests in all repositories.
func (im *images) count() (n int) {
	for _, r := range im.repos {
		n += len(r.revisions)
	}
	return n
}

// countLinks is how many links files returns.
func (im *images) countLinks() (n int) {
	for _, r := range im.repos {
		n += len(r.revisions) + len(r.layers) + len(r.tags)
		for _, t := range r.tags {
			n += len(t.index)
		}
	}
	return n
}

// files are the links, by path.
func (im *images) files() map[string]digest {
	out := map[string]digest{}
	for name, r := range im.repos {
		for d := range r.revisions {
			out[d.linkPath(revisionsOf(name))] = d
		}
		for d := range r.layers {
			out[d.linkPath(layersOf(name))] = d
		}
		for t, tagged := range r.tags {
			dir := path.Join(repositoryPath(name), "_manifests/tags", t)
			out[path.Join(dir, "current/link")] = tagged.current
			for d := range tagged.index {
				out[d.linkPath(path.Join(dir, "index"))] = d
			}
		}
	}
	return out
}
