package archive

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack: whatever is read, nothing is written beside the directory, everything in
// it is of the layout, and what is taken has images that are whole.
func FuzzUnpack(f *testing.F) {
	from := newTree(f)
	from.image("app", "v1")
	var whole bytes.Buffer
	if _, err := from.backup().Write(f.Context(), &whole); err != nil {
		f.Fatal(err)
	}
	small := from.backup()
	small.Header.WithoutImages = true
	var records bytes.Buffer
	if _, err := small.Write(f.Context(), &records); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(records.Bytes())
	f.Add(records.Bytes()[:1000])
	f.Add(tarOf(f, insert(items(f, records.Bytes()), regular("../out", "x"))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := newTree(t).dir
		to := tree{t, filepath.Join(outer, "in")}
		if err := os.Mkdir(to.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _, err := Unpack(t.Context(), bytes.NewReader(data), to.dir)
		if beside, bad := os.ReadDir(outer); bad != nil || len(beside) != 1 {
			t.Fatalf("it wrote %v (%v)", beside, bad)
		}
		for name := range to.files() {
			if !Takes(name) {
				t.Errorf("it wrote %q", name)
			}
		}
		if err != nil {
			return
		}
		im, err := gather(t.Context(), to.dir)
		if err != nil {
			t.Fatal(err)
		}
		if lost := im.prune(); len(lost) != 0 {
			t.Errorf("it took %v", lost)
		}
	})
}

// FuzzParseRefs: whatever a manifest says, what is followed are digests.
func FuzzParseRefs(f *testing.F) {
	d := digestOf("x")
	for _, s := range []string{imageOf(d, d), indexOf(d), `{"fsLayers":[{"blobSum":"sha256:x"}]}`, `[]`, `{"config":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRefs(data)
		for _, d := range append(r.blobs, r.manifests...) {
			if !validDigest().MatchString(string(d)) || err != nil {
				t.Errorf("%q, %v", d, err)
			}
			if k, ok := kindOf(d.blobPath()); !ok || k.limit != 0 {
				t.Errorf("the blob of %s has no place", d)
			}
		}
	})
}
