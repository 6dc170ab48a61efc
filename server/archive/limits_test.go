package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// endless streams a backup of files named by name until its reader has enough of it,
// and counts them.
func endless(t *testing.T, name func(i int) string) (r *io.PipeReader, files func() int) {
	t.Helper()
	header, err := json.Marshal(newTree(t).backup().Header)
	if err != nil {
		t.Fatal(err)
	}
	header = []byte(strings.Replace(string(header), `"format":0`, `"format":1`, 1))
	r, w := io.Pipe()
	made := make(chan int, 1)
	go func() {
		n, out := 0, tar.NewWriter(w)
		write := func(name string, data []byte) error {
			err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(data))})
			if err == nil {
				_, err = out.Write(data)
			}
			return err
		}
		for err := write(headerPath, header); err == nil; n++ {
			err = write(name(n), nil)
		}
		made <- n
	}()
	return r, func() int {
		_ = r.Close() // now it ends
		return <-made
	}
}

// heap is what is in use after a collection (bytes).
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestEndless: a backup that does not end is refused while what is kept of it is as
// small as the limit says, and of no more files than it allows.
func TestEndless(t *testing.T) {
	const limit = 3 << 20
	for what, name := range map[string]func(i int) string{
		"records": func(i int) string { return fmt.Sprintf("state/records/r%d.json", i) },
		"links": func(i int) string {
			return digestOf(fmt.Sprint(i)).linkPath(layersOf(fmt.Sprintf("team/app%d", i/10)))
		},
		"long paths": func(i int) string {
			return digestOf(fmt.Sprint(i)).linkPath(layersOf(strings.Repeat("a/", 400) + fmt.Sprintf("app%d", i)))
		},
	} {
		t.Run(what, func(t *testing.T) {
			source, files := endless(t, name)
			in := &reader{ctx: t.Context(), dir: newTree(t).dir, maxList: limit, buffer: make([]byte, copyBuffer)}
			before := heap()
			_, err := in.read(source)
			kept := heap() - before
			runtime.KeepAlive(in)
			n := files()
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "which no backup has: their list alone would take more than 3 MiB of memory; nothing was changed") {
				t.Errorf("error %v", err)
			}
			if kept > limit*5/4 {
				t.Errorf("%d bytes are kept of %d files; the limit is %d", kept, len(in.entries), limit)
			}
			if most := limit / int(listCost(name(0))); n > most+most/10+copyBuffer/512 {
				t.Errorf("it went on for %d files; the limit allows %d", n, most)
			}
			t.Logf("refused after %d files, %d bytes each", len(in.entries), kept/int64(len(in.entries)))
		})
	}
}

// TestLimits: each is refused before it is unpacked; and nothing is written that could
// not be read back.
func TestLimits(t *testing.T) {
	from := planted(t)
	data, _ := from.tar()
	all := items(t, data)
	long := digestOf("x").linkPath(layersOf(strings.Repeat("a/", 500) + "app"))
	if _, _, _, err := unpack(t, tarOf(t, insert(all, regular(long, "x")))); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), fmt.Sprintf("a path of %d bytes", len(long))) {
		t.Errorf("a long path: %v", err)
	}

	list := all[len(all)-1]
	list.data += strings.Repeat("\n", maxLine+len(list.data))
	list.head.Size = int64(len(list.data))
	to := newTree(t)
	in := &reader{ctx: t.Context(), dir: to.dir, maxList: maxList, buffer: make([]byte, copyBuffer)}
	if _, err := in.manifest(strings.NewReader(list.data), list.head.Size); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "its list of files has") {
		t.Errorf("a long list: %v", err)
	}

	_, size := sizeOf(smallFiles, &images{})
	b := from.backup()
	b.Header.WithoutImages, b.most = true, size
	if _, err := b.Write(t.Context(), io.Discard); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	b.most--
	if _, err := b.Write(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "too many files for one backup") {
		t.Errorf("above the limit: %v", err)
	}
	if maxList > 1<<30 {
		t.Error("a hostile backup takes more than 1 GiB of memory")
	}
}

// repeated reads the same over and over, and counts.
type repeated struct {
	data []byte
	read int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.data[r.read%len(r.data):])
	r.read += n
	return n, nil
}

// TestPeek: what was read to find the header is there to be read again, and is bounded.
func TestPeek(t *testing.T) {
	data, _ := planted(t).tar()
	header, again, err := Peek(bytes.NewReader(data))
	if err != nil || header.Domain != "r.test:5000" || header.Generation != 3 {
		t.Fatalf("%+v, %v", header, err)
	}
	if got, err := io.ReadAll(again); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes are left (%v)", len(got), len(data), err)
	}
	if _, _, err := Peek(strings.NewReader("no tar")); !errors.Is(err, ErrRefused) {
		t.Errorf("no tar: %v", err)
	}

	// Headers for a file that never comes.
	var long bytes.Buffer
	w := tar.NewWriter(&long)
	if err := w.WriteHeader(&tar.Header{Name: "x", Format: tar.FormatPAX, PAXRecords: map[string]string{"TC.x": strings.Repeat("x", 5000)}}); err != nil {
		t.Fatal(err)
	}
	source := &repeated{data: long.Bytes()[:long.Len()-512]} // but for the file's own
	if _, _, err := Peek(source); !errors.Is(err, ErrRefused) || source.read > 3*maxHeader {
		t.Errorf("after %d bytes: %v", source.read, err)
	}
}
