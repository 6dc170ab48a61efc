package memory

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

func TestDue(t *testing.T) {
	const mib = 1 << 20
	var h history
	for i, step := range []struct {
		what            string
		allocated, live uint64
		garbage, pages  bool
	}{
		{"start", 6 * mib, 3 * mib, false, false},
		{"still busy", 8 * mib, 3 * mib, false, false},
		{"quiet", 8*mib + 100, 3 * mib, true, true},
		{"quiet for longer", 8*mib + 200, 3 * mib, false, false},
		{"a small image", 10 * mib, 3 * mib, false, false},
		{"quiet after it", 10*mib + 100, 3 * mib, false, true},
		{"a burst", 900 * mib, 50 * mib, false, false},
		{"quiet after it", 900*mib + 100, 50 * mib, true, true},
		{"a few agents", 900*mib + 600<<10, 20 * mib, false, false},
		{"for longer", 901*mib + 200<<10, 20 * mib, false, true},
		{"a little less than Go would collect", 920*mib - 1, 20 * mib, false, false},
		{"as much as it would", 920*mib + 100, 20 * mib, true, true},
	} {
		if garbage, pages := h.due(step.allocated, step.live); garbage != step.garbage || pages != step.pages {
			t.Errorf("step %d, %s: garbage %v, pages %v", i, step.what, garbage, pages)
		}
	}
}

func TestUntouched(t *testing.T) {
	const smaps = `00400000-01535000 r-xp 00000000 fe:00 4711                               /usr/bin/a program (deleted)
Size:              17620 kB
Rss:                1728 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01535000-029f1000 r--p 01135000 fe:00 4711                               /usr/bin/a program (deleted)
Rss:                1856 kB
Anonymous:             4 kB
029f1000-02aa6000 rw-p 025f1000 fe:00 4711                               /usr/bin/a program (deleted)
Anonymous:             0 kB
02aa6000-02ab6000 r--p 00000000 fe:00 4712                               /usr/bin/b
Anonymous:             0 kB
374534c00000-374535800000 rw-p 00000000 00:00 0 
Anonymous:          6260 kB
02ab6000-02ac6000 r--p 026a6000 fe:00 4711                               /usr/bin/a program (deleted)
Anonymous:             0 kB
`
	got, err := untouched(strings.NewReader(smaps), "/usr/bin/a program (deleted)")
	if err != nil {
		t.Fatal(err)
	}
	want := []segment{{0x400000, 0x1535000}, {0x2ab6000, 0x2ac6000}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(segment{})); diff != "" {
		t.Errorf("untouched (- want, + got)\n%s", diff)
	}
}

var written = []byte("as in the file")

// TestUnmap: the program's pages leave, what it has written stays, and it goes on.
func TestUnmap(t *testing.T) {
	copy(written, "written since!")
	before := fileBacked(t)
	if err := unmap(); err != nil {
		t.Fatal(err)
	}
	after := fileBacked(t)
	t.Logf("pages of files: %d KiB, then %d KiB", before, after)
	if after >= before {
		t.Error("no page has left")
	}
	if string(written) != "written since!" {
		t.Errorf("data was lost: %q", written)
	}
	if sum := sha256.Sum256(nil); hex.EncodeToString(sum[:4]) != "e3b0c442" {
		t.Error("the program does something else")
	}
}

// TestUnmapLeavesBreakpoints: what somebody wrote into the program from outside stays.
func TestUnmapLeavesBreakpoints(t *testing.T) {
	const text = "a constant of the program, in which a tracer leaves a mark"
	constant := unsafe.StringData(text)
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = mem.Close() }()
	at := int64(uintptr(unsafe.Pointer(constant)))
	if _, err := mem.WriteAt([]byte("X"), at); err != nil {
		t.Skipf("this system lets nobody write there: %v", err)
	}
	if err := unmap(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	if _, err := mem.ReadAt(got, at); err != nil {
		t.Fatal(err)
	}
	if string(got) != "X" {
		t.Errorf("the mark was lost: %q", got)
	}
}

// TestCollect: memory of a burst is the system's again at once, also what a pool held.
func TestCollect(t *testing.T) {
	var pool sync.Pool // which loses some of what it gets, under the race detector
	burst := func() (held int) {
		b := bytes.Repeat([]byte{1}, 64<<20)
		defer pool.Put(&b)
		return status(t, "RssAnon")
	}
	burst() // that detector's notes of freed memory stay, and are made with the first
	collect()
	held := burst()
	collect()
	left := status(t, "RssAnon")
	t.Logf("memory of its own: %d KiB, then %d KiB", held, left)
	if held-left < 60<<10 {
		t.Error("the burst stays")
	}
	if pool.Get() != nil { // and keeps the pool until here
		t.Error("the pool still has it")
	}
}

func fileBacked(t *testing.T) int { return status(t, "RssFile") }

// status is a figure of /proc/self/status in KiB.
func status(t *testing.T, field string) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(raw)
	if found == nil {
		t.Fatalf("no %s in\n%s", field, raw)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
