package crash

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// change is one durable change of a file: its rename or removal, and the sync of
// the directory that makes it last.
type change struct {
	path      string
	act, sync call
}

// changes returns the durable changes of the files under a directory, and every
// one that was not done in this order: write, fsync of the file, rename, fsync
// of the directory.
func changes(calls []call, under string) (all []change, problems error) {
	for i, c := range calls {
		from, path, renamed := c.renames()
		if !renamed {
			path, _ = c.unlinks()
		}
		if !strings.HasPrefix(path, under+"/") || strings.HasSuffix(path, ".sock") {
			continue
		}
		if renamed {
			problems = errors.Join(problems, fileSynced(calls[:i], c, from, path))
		}
		ch := change{path: path, act: c}
		for _, s := range calls[i:] {
			if s.begin > c.end && s.syncs(filepath.Dir(path)) {
				ch.sync = s
				break
			}
		}
		if ch.sync.name == "" {
			problems = errors.Join(problems, fmt.Errorf("line %d: %s was changed and its directory never synced", c.begin, path))
			continue
		}
		all = append(all, ch)
	}
	return all, problems
}

// fileSynced: all that was written to the temporary file was synced before it
// was renamed.
func fileSynced(before []call, rename call, from, path string) error {
	written, synced := -1, -1
	for _, c := range before {
		switch {
		case c.writes() && c.fd() == from:
			written = max(written, c.end)
		case c.syncs(from) && c.end < rename.begin && c.begin > written:
			synced = c.end
		}
	}
	if written < 0 {
		return fmt.Errorf("line %d: %s was renamed from %s, which nobody wrote", rename.begin, path, from)
	}
	if synced < written {
		return fmt.Errorf("line %d: %s was renamed before it was synced", rename.begin, path)
	}
	return nil
}

// of returns the changes of one file, or of all files that match a pattern.
func of(all []change, pattern string) (some []change) {
	for _, c := range all {
		if ok, _ := filepath.Match(pattern, filepath.Base(filepath.Dir(c.path))+"/"+filepath.Base(c.path)); ok {
			some = append(some, c)
		}
	}
	return some
}

// message is a kind of network message: what a program writes to one address.
type message struct {
	// connection is how strace shows it, up to the address that is known.
	prefix, suffix string
	// least is the size in bytes from which on a write can be one; shorter ones
	// are the protocol's own.
	least int64
}

func (m message) is(c call) bool {
	fd := c.fd()
	return c.writes() && c.result >= m.least && strings.HasPrefix(fd, m.prefix) && strings.HasSuffix(fd, m.suffix)
}

// told: no message leaves between a change and the sync that makes it last, and
// one leaves later, before the next change.
func told(calls []call, some []change, m message) (problems error) {
	for i, ch := range some {
		until := 1 << 62
		if i+1 < len(some) {
			until = some[i+1].act.begin
		}
		after := 0
		for _, c := range calls {
			switch {
			case !m.is(c) || c.begin <= ch.act.begin || c.begin >= until:
			case c.begin <= ch.sync.end:
				problems = errors.Join(problems, fmt.Errorf("line %d: a message of %d bytes left before %s was synced (line %d)", c.begin, c.result, ch.path, ch.sync.end))
			default:
				after++
			}
		}
		if after == 0 {
			problems = errors.Join(problems, fmt.Errorf("line %d: no message followed the change of %s: the trace shows nothing", ch.act.begin, ch.path))
		}
	}
	return problems
}

// silent: no message leaves from the first change of a step to the end of its
// last one.
func silent(calls []call, first, last change, m message) error {
	for _, c := range calls {
		if m.is(c) && c.begin > first.act.begin && c.begin <= last.sync.end {
			return fmt.Errorf("line %d: a message of %d bytes left between the changes of %s and %s", c.begin, c.result, first.path, last.path)
		}
	}
	return nil
}

// before: every change of the one kind lasts before the next of the other kind
// begins, and there is a next one.
func before(first, then []change) (problems error) {
	for _, f := range first {
		followed := false
		for _, t := range then {
			if t.act.begin < f.act.begin {
				continue
			}
			followed = true
			if f.sync.end >= t.act.begin {
				problems = errors.Join(problems, fmt.Errorf("line %d: %s was changed before %s was synced (line %d)", t.act.begin, t.path, f.path, f.sync.end))
			}
			break
		}
		if !followed {
			problems = errors.Join(problems, fmt.Errorf("line %d: no change followed that of %s", f.act.begin, f.path))
		}
	}
	return problems
}

// sample is an agent's install, as strace shows it: the file, then the report.
const sample = `939   openat(AT_FDCWD</>, "/c/r:5000/.ca.crt12", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600 <unfinished ...>
940   write(11<TCP:[127.0.0.1:60152->127.0.0.1:7443]>, ""..., 39) = 39
939   <... openat resumed>)             = 9</c/r:5000/.ca.crt12>
939   write(9</c/r:5000/.ca.crt12>, ""..., 1300) = 1300
939   fsync(9</c/r:5000/.ca.crt12> <unfinished ...>
940   --- SIGURG {si_signo=SIGURG, si_code=SI_TKILL, si_pid=930, si_uid=0} ---
939   <... fsync resumed>)              = 0
939   close(9</c/r:5000/.ca.crt12>)     = 0
939   renameat(AT_FDCWD</>, "/c/r:5000/.ca.crt12", AT_FDCWD</>, "/c/r:5000/ca.crt") = 0
939   openat(AT_FDCWD</>, "/c/r:5000", O_RDONLY|O_CLOEXEC) = 9</c/r:5000>
939   fsync(9</c/r:5000>)               = 0
939   close(9</c/r:5000>)               = 0
940   write(11<TCP:[127.0.0.1:60152->127.0.0.1:7443]>, ""..., 278) = 278
940   ???( <unfinished ...>
940   +++ exited with 0 +++
`

// rooted is the same install through a descriptor of the directory, as os.Root does it.
var rooted = strings.NewReplacer(
	`openat(AT_FDCWD</>, "/c/r:5000/.ca.crt12"`, `openat(8</c/r:5000>, ".ca.crt12"`,
	`AT_FDCWD</>, "/c/r:5000/.ca.crt12", AT_FDCWD</>, "/c/r:5000/ca.crt"`, `8</c/r:5000>, ".ca.crt12", 8</c/r:5000>, "ca.crt"`,
	`openat(AT_FDCWD</>, "/c/r:5000", `, `openat(8</c/r:5000>, ".", `,
).Replace(sample)

// judgeSample applies all rules to a trace of the sample's kind.
func judgeSample(trace string) error {
	calls, err := parseTrace(strings.NewReader(trace))
	if err != nil {
		return err
	}
	all, err := changes(calls, "/c")
	return errors.Join(err, told(calls, of(all, "r:5000/ca.crt"), message{prefix: "TCP:[", suffix: "->127.0.0.1:7443]", least: leastReport}))
}

// TestOrderJudge is the negative control: it doctors a good trace, and each time
// the judge must complain.
func TestOrderJudge(t *testing.T) {
	for name, trace := range map[string]string{"by path": sample, "by name": rooted} {
		t.Run(name, func(t *testing.T) { judgeDoctored(t, trace) })
	}
	calls, err := parseTrace(strings.NewReader("939 unlinkat(8</c/keys>, \"old.key\", 0) = 0\n939 fsync(8</c/keys>) = 0\n"))
	must(t, err)
	if all, err := changes(calls, "/c"); err != nil || len(all) != 1 || all[0].path != "/c/keys/old.key" {
		t.Errorf("a removal by name: %v (%v)", all, err)
	}
}

func judgeDoctored(t *testing.T, sample string) {
	if err := judgeSample(sample); err != nil {
		t.Fatalf("the good trace: %v", err)
	}
	lines := strings.SplitAfter(sample, "\n")
	line := func(part string) int {
		for i, l := range lines {
			if strings.Contains(l, part) {
				return i
			}
		}
		t.Fatalf("the sample has no %q", part)
		return 0
	}
	rename, dir, report := line("renameat"), line("fsync(9</c/r:5000>)"), line("278")
	fileSync, fileSynced := line("fsync(9</c/r:5000/.ca.crt12>"), line("fsync resumed")
	for _, c := range []struct {
		name  string
		order []int // line numbers of the sample
		want  string
	}{
		{"no sync of the directory", without(lines, dir), "its directory never synced"},
		{"no sync of the file", without(lines, fileSync, fileSynced), "renamed before it was synced"},
		{"sync of the file after the rename", moved(lines, rename, fileSync), "renamed before it was synced"},
		{"sync of the file ends after the rename", moved(lines, fileSynced, rename+1), "renamed before it was synced"},
		{"sync of the directory before the rename", moved(lines, dir, rename), "its directory never synced"},
		{"report before the sync of the directory", moved(lines, report, dir), "left before"},
		{"report before the rename", moved(lines, report, rename), "no message followed"},
		{"write after the sync", moved(lines, line(`""..., 1300`), rename), "renamed before it was synced"},
		{"a failed sync", nil, "renamed before it was synced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			doctored := strings.Replace(sample, "<... fsync resumed>)              = 0", "<... fsync resumed>)              = -1 EIO (Input/output error)", 1)
			if c.order != nil {
				doctored = pick(lines, c.order)
			}
			if err := judgeSample(doctored); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q, of\n%s", err, c.want, doctored)
			}
		})
	}
}

func numbers(lines []string) (all []int) {
	for i := range lines {
		all = append(all, i)
	}
	return all
}

// without leaves lines out.
func without(lines []string, out ...int) (order []int) {
	for _, i := range numbers(lines) {
		left := true
		for _, o := range out {
			left = left && i != o
		}
		if left {
			order = append(order, i)
		}
	}
	return order
}

// moved puts a line in front of another one.
func moved(lines []string, from, to int) (order []int) {
	for _, i := range numbers(lines) {
		if i == to {
			order = append(order, from)
		}
		if i != from {
			order = append(order, i)
		}
	}
	return order
}

func pick(lines []string, order []int) string {
	var b strings.Builder
	for _, i := range order {
		b.WriteString(lines[i])
	}
	return b.String()
}
