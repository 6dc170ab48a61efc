package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// item is one of a tar's.
type item struct {
	head tar.Header
	data string
}

func regular(name, data string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(data))}, data}
}

func items(t testing.TB, data []byte) (out []item) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, item{*h, string(content)})
	}
}

// tarOf writes a tar with its list of files made anew, as somebody would who wants
// it to be taken.
func tarOf(t testing.TB, all []item) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var entries []entry
	for _, it := range all {
		if it.head.Name == manifestPath {
			m, err := manifestOf(entries, Report{Files: len(entries), Damaged: []string{}})
			if err != nil {
				t.Fatal(err)
			}
			it = regular(manifestPath, string(m))
		} else if it.head.Typeflag == tar.TypeReg {
			_, sum := digestOf(it.data).parts()
			entries = append(entries, entry{Path: it.head.Name, Size: it.head.Size, SHA256: sum, Mode: "0600"})
		}
		if err := w.WriteHeader(&it.head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, it.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// insert puts items before the list of files.
func insert(all []item, more ...item) []item {
	last := len(all) - 1
	return append(append(append([]item(nil), all[:last]...), more...), all[last])
}

// without leaves out the files whose path has a part.
func without(all []item, part string) (out []item) {
	for _, it := range all {
		if !strings.Contains(it.head.Name, part) {
			out = append(out, it)
		}
	}
	return out
}

func TestRefused(t *testing.T) {
	from := planted(t)
	manifest, first := from.image("app", "v1")
	data, _ := from.tar()
	all := items(t, data)
	if _, _, _, err := unpack(t, tarOf(t, all)); err != nil { // the control
		t.Fatalf("what was changed in nothing is refused: %v", err)
	}
	typed := func(kind byte, name string) item {
		return item{tar.Header{Typeflag: kind, Name: name, Linkname: "/etc/passwd", Mode: 0o600}, ""}
	}
	replaced := func(name, data string) []item {
		var out []item
		for _, it := range all {
			if it.head.Name == name {
				it = regular(name, data)
			}
			out = append(out, it)
		}
		return out
	}
	record := "state/records/more.json"
	for what, test := range map[string]struct {
		items []item
		want  string
	}{
		"nothing":            {nil, "it is empty"},
		"another tar":        {[]item{regular("etc/passwd", "x")}, "no backup of trustcast"},
		"no list":            {all[:len(all)-1], "cut off"},
		"absolute":           {insert(all, regular("/"+record, "{}")), "no place"},
		"above":              {insert(all, regular("state/records/../../x.json", "{}")), "no place"},
		"above, clean":       {insert(all, regular("../x", "{}")), "no place"},
		"dot":                {insert(all, regular("./"+record, "{}")), "no place"},
		"outside the layout": {insert(all, regular("run/x", "{}")), "no place"},
		"hidden":             {insert(all, regular("state/records/.x.json", "{}")), "no place"},
		"directory outside":  {insert(all, typed(tar.TypeDir, "etc/")), "no place"},
		"directory above":    {insert(all, typed(tar.TypeDir, "state/../../etc/")), "no place"},
		"symlink":            {insert(all, typed(tar.TypeSymlink, record)), "no regular file"},
		"hard link":          {insert(all, typed(tar.TypeLink, record)), "no regular file"},
		"device":             {insert(all, typed(tar.TypeChar, record)), "no regular file"},
		"fifo":               {insert(all, typed(tar.TypeFifo, record)), "no regular file"},
		"twice":              {insert(all, regular(record, "{}"), regular(record, "{}")), "twice"},
		"large record":       {insert(all, regular(record, strings.Repeat("x", 4<<20+1))), "at most"},
		"large link":         {insert(all, regular(digestOf("x").linkPath(layersOf("app")), strings.Repeat("x", 300))), "at most"},
		"wrong blob":         {replaced(first.blobPath(), "evil"), "is damaged: its content has the digest"},
		"wrong place":        {insert(all, regular(registryRoot+"/blobs/sha256/00/"+strings.Repeat("ab", 32)+"/data", "x")), "is damaged"},
		"missing blob":       {without(all, first.blobPath()), "incomplete"},
		"missing manifest":   {without(all, manifest.blobPath()), "incomplete"},
		"missing layer link": {without(all, first.linkPath(layersOf("app"))), "incomplete"},
		"missing revision":   {without(all, manifest.linkPath(revisionsOf("app"))), "leads nowhere"},
		"link elsewhere":     {replaced(manifest.linkPath(revisionsOf("app")), string(first)), "leads nowhere"},
		"newer":              {replaced(headerPath, `{"format":2,"trustcast":"v9","made":"2026-01-02T03:04:05Z"}`), "format 2, written by trustcast v9"},
		"no format":          {replaced(headerPath, `{}`), "header is damaged"},
		"after the header":   {append([]item{all[1]}, all...), "no backup of trustcast"},
		"header twice":       {insert(all, all[0]), "where the header should not be"},
	} {
		t.Run(what, func(t *testing.T) {
			_, _, _, err := unpack(t, tarOf(t, test.items))
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestChangedList: a list of files that does not belong to the files.
func TestChangedList(t *testing.T) {
	data, _ := planted(t).tar()
	all := items(t, data)
	last := len(all) - 1
	lines := strings.SplitAfter(all[last].data, "\n")
	for what, list := range map[string]string{
		"empty": "", "no report": strings.Join(lines[:len(lines)-2], ""), "one less": strings.Join(lines[1:], ""),
		"one more": lines[0] + all[last].data, "more at its end": all[last].data + lines[0], "no JSON": "x",
		"damaged record": strings.Replace(all[last].data, `"mode":"0600"`, `"mode":"0600","damaged":true`, 1),
		"a long line":    strings.Repeat("x", maxLine+1),
	} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, it := range append(append([]item(nil), all[:last]...), regular(manifestPath, list)) {
			if err := errors.Join(w.WriteHeader(&it.head), write(w, it.data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := unpack(t, out.Bytes()); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func write(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// TestTruncated: cut anywhere but in the padding behind the list, it is refused.
func TestTruncated(t *testing.T) {
	from := newTree(t)
	from.image("app", "v1")
	data, _ := from.tar()
	end := bytes.LastIndex(data, []byte(`"damaged":[]}`)) + len(`"damaged":[]}`)
	step := 397
	for n := 0; n < end; n += step {
		if _, _, _, err := unpack(t, data[:n]); !errors.Is(err, ErrRefused) {
			t.Fatalf("cut at %d of %d: %v", n, len(data), err)
		}
	}
}

// TestFlipped: a changed bit in any file is found.
func TestFlipped(t *testing.T) {
	from := newTree(t)
	from.image("app", "v1")
	data, _ := from.tar()
	want, _, _, err := unpack(t, data)
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for i := 512; i < len(data); i += 173 {
		if data[i] == 0 {
			continue // padding, which nobody reads
		}
		bad := bytes.Clone(data)
		bad[i] ^= 0x20
		to, _, _, err := unpack(t, bad)
		if err == nil {
			if d := cmp.Diff(want.files(), to.files()); d != "" {
				t.Errorf("a flip at %d was not found:\n%s", i, d)
			}
			continue // a letter's case in the report, which is for people
		}
		flipped++
	}
	if flipped < 30 {
		t.Errorf("only %d flips were found", flipped)
	}
}

// TestNothingLeavesTheDirectory is the control for paths: what is refused has written
// nothing beside it.
func TestNothingLeavesTheDirectory(t *testing.T) {
	outer := t.TempDir()
	dir := outer + "/in"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	data, _ := newTree(t).tar()
	all := items(t, data)
	_, _, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, insert(all, regular("../out", "x")))), dir)
	entries, bad := os.ReadDir(outer)
	if !errors.Is(err, ErrRefused) || bad != nil || len(entries) != 1 {
		t.Errorf("%v; %v beside it (%v)", err, entries, bad)
	}
}
