package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trustcast/trustcast/internal/below"
)

// maxLink bounds a link (bytes): the longest digest has 135.
const maxLink = 1 << 10

// images is what the links of a registry name at about one moment. What is pushed
// while they are gathered may be in it or not, but never in part.
type images struct {
	// dir is the data directory's docker/, in which containers may have written
	// anything; nil when there is none.
	dir   *below.Dir
	repos map[string]*repository
	// sizes of the blobs that links name and that are there (bytes).
	sizes map[digest]int64
	// damaged are blobs that turned out not to be what their digest says, with the
	// reason.
	damaged map[digest]string
	// foreign is what stands in a link's place and is none of a registry's.
	foreign error
}

type repository struct {
	tags              map[string]*tag
	revisions, layers map[digest]bool
	refs              map[digest]refs // of revisions that could be read
}

type tag struct {
	current digest
	index   map[digest]bool
}

// gather reads the links. A push writes blobs first, then the links of layers, the
// manifest's and the tag's; so they are read the other way round, and whatever one
// names that was missed is looked for again.
func gather(ctx context.Context, dir string) (*images, error) {
	im := &images{repos: map[string]*repository{}, sizes: map[digest]int64{}, damaged: map[digest]string{}}
	var err error
	im.dir, err = below.Open(filepath.Join(dir, imageRoot))
	if errors.Is(err, fs.ErrNotExist) {
		return im, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for images: %w", err)
	}
	if err := im.readAll(ctx); err != nil {
		return nil, errors.Join(err, im.close())
	}
	return im, nil
}

// close is the end of reading.
func (im *images) close() error {
	if im.dir == nil {
		return nil
	}
	return im.dir.Close()
}

func (im *images) readAll(ctx context.Context) error {
	if err := im.findRepositories(""); err != nil {
		return fmt.Errorf("look for images: %w", err)
	}
	for _, name := range im.names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := im.read(name); err != nil {
			return fmt.Errorf("look for images of %s: %w", name, err)
		}
	}
	return im.foreign
}

// imageRoot is what of a data directory holds images; paths of the registry begin
// with it.
const imageRoot = "docker"

// inside is a path of the registry as dir has it.
func inside(p string) string { return strings.TrimPrefix(p, imageRoot+"/") }

func (im *images) names() []string { return slices.Sorted(maps.Keys(im.repos)) }

// list returns the names in a directory under the data directory; one that is not
// there has none.
func (im *images) list(dir string) ([]fs.DirEntry, error) {
	entries, err := im.dir.List(inside(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// findRepositories finds those below a prefix; one may lie within another.
func (im *images) findRepositories(prefix string) error {
	entries, err := im.list(repositoryPath(prefix))
	for _, e := range entries {
		switch {
		case !e.IsDir():
			if _, err := im.dir.Stat(inside(path.Join(repositoryPath(prefix), e.Name()))); err != nil {
				return err // a link would be left out in silence
			}
		case e.Name() == "_manifests", e.Name() == "_layers":
			im.repos[prefix] = &repository{tags: map[string]*tag{}, revisions: map[digest]bool{}, layers: map[digest]bool{}, refs: map[digest]refs{}}
		case validComponent().MatchString(e.Name()):
			if err := im.findRepositories(path.Join(prefix, e.Name())); err != nil {
				return err
			}
		}
	}
	return err
}

// read gathers one repository: tags, revisions, layers, and then what those
// name.
func (im *images) read(name string) error {
	r := im.repos[name]
	root := repositoryPath(name)
	tags, err := im.list(path.Join(root, "_manifests/tags"))
	if err != nil {
		return err
	}
	for _, e := range tags {
		if !validTag().MatchString(e.Name()) {
			continue
		}
		if r.tags[e.Name()], err = im.readTag(path.Join(root, "_manifests/tags", e.Name())); err != nil {
			return err
		}
	}
	if err := im.links(revisionsOf(name), r.revisions); err != nil {
		return err
	}
	if err := im.links(layersOf(name), r.layers); err != nil {
		return err
	}
	for t, tagged := range r.tags {
		if tagged == nil || !im.revision(name, tagged.current) {
			delete(r.tags, t) // removed meanwhile
			continue
		}
		maps.DeleteFunc(tagged.index, func(d digest, _ bool) bool { return !im.revision(name, d) })
		tagged.index[tagged.current] = true
	}
	for _, d := range slices.Sorted(maps.Keys(r.revisions)) {
		im.follow(name, d)
	}
	for d := range r.layers {
		im.stat(d)
	}
	return nil
}

func revisionsOf(name string) string { return path.Join(repositoryPath(name), "_manifests/revisions") }
func layersOf(name string) string    { return path.Join(repositoryPath(name), "_layers") }

// readTag reads a tag; nil when it is not there (any more).
func (im *images) readTag(dir string) (*tag, error) {
	current, err := im.link(path.Join(dir, "current/link"))
	if err != nil || current == "" {
		return nil, err
	}
	t := &tag{current: current, index: map[digest]bool{}}
	return t, im.links(path.Join(dir, "index"), t.index)
}

// link reads a link; "" when it is not there, or says nothing that can be followed.
func (im *images) link(file string) (digest, error) {
	data, err := im.dir.Read(inside(file), maxLink)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, below.ErrForeign): // to leave it out in silence would be worse
		im.foreign = fmt.Errorf("look for images: %w: find out who put it there, then remove it", err)
		return "", im.foreign
	case err != nil:
		return "", err
	case !validDigest().Match(data):
		return "", nil // an old registry writes it in place
	}
	return digest(data), nil
}

// links adds the digests under dir whose links are there.
func (im *images) links(dir string, into map[digest]bool) error {
	algorithms, err := im.list(dir)
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		entries, err := im.list(path.Join(dir, a.Name()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			d := digest(a.Name() + ":" + e.Name())
			if validDigest().MatchString(string(d)) && im.linked(dir, d) {
				into[d] = true
			}
		}
	}
	return nil
}

// linked: the link is there, and names what its path does.
func (im *images) linked(dir string, d digest) bool {
	got, err := im.link(d.linkPath(dir))
	return err == nil && got == d
}

// revision says whether a manifest is in a repository, and adds it when it came
// while others were listed.
func (im *images) revision(name string, d digest) bool {
	r := im.repos[name]
	if !r.revisions[d] && im.linked(revisionsOf(name), d) {
		r.revisions[d] = true
	}
	return r.revisions[d]
}

// follow reads a manifest and adds what it names.
func (im *images) follow(name string, d digest) {
	r := im.repos[name]
	if _, done := r.refs[d]; done {
		return
	}
	if !im.stat(d) {
		return
	}
	found, err := im.readRefs(d)
	if err != nil {
		im.damaged[d] = err.Error()
		return
	}
	r.refs[d] = found
	for _, b := range found.blobs {
		if !r.layers[b] && im.linked(layersOf(name), b) {
			r.layers[b] = true
		}
		im.stat(b)
	}
	for _, m := range found.manifests {
		if im.revision(name, m) {
			im.follow(name, m)
		}
	}
}

// stat says whether a blob is there, and keeps its size.
func (im *images) stat(d digest) bool {
	if _, ok := im.sizes[d]; ok {
		return true
	}
	info, err := im.dir.Stat(inside(d.blobPath()))
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	im.sizes[d] = info.Size()
	return true
}
