package crash

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// traced are the calls that strace must show, fd arguments with their paths.
const traced = "openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,write,writev,sendto,sendmsg,close"

// call is one system call of a traced program. A call that lasted while others
// happened has two lines: it did its work somewhere between them.
type call struct {
	begin, end int // line numbers
	name, args string
	result     int64 // negative: it failed
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	resultText  = regexp.MustCompile(`\) += (-?\d+|\?)(?:[ <].*)?$`)
	fdText      = regexp.MustCompile(`^\d+<(.*?)>(?:, |$)`)
	nameText    = regexp.MustCompile(`(?:(?:AT_FDCWD|\d+)<([^"]*?)>, )?"([^"]+)"`)
)

const unfinished = " <unfinished ...>"

// parseTrace reads what `strace -f -yy -s 0` has written. A line that it does
// not understand is an error: what is not read cannot be judged.
func parseTrace(r io.Reader) ([]call, error) {
	var calls []call
	open := map[string]int{} // by thread: the index of its unfinished call
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			i, ok := open[m[1]]
			if !ok || calls[i].name != m[2] {
				return nil, fmt.Errorf("line %d resumes what was not begun: %s", n, line)
			}
			delete(open, m[1])
			calls[i].args += m[3]
			if err := calls[i].finish(n); err != nil {
				return nil, err
			}
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			if strings.Contains(line, "+++ ") || strings.Contains(line, "--- SIG") || strings.HasSuffix(line, " ???("+unfinished) {
				continue // a thread's end, a signal, a thread that ends while strace looks
			}
			return nil, fmt.Errorf("line %d is not understood: %s", n, line)
		}
		c := call{begin: n, name: m[2], args: m[3]}
		if args, cut := strings.CutSuffix(c.args, unfinished); cut {
			c.args, c.end, c.result = args, 1<<62, -1 // until it is resumed
			open[m[1]] = len(calls)
		} else if err := c.finish(n); err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	return calls, lines.Err()
}

// finish takes the result off the arguments.
func (c *call) finish(line int) error {
	at := resultText.FindStringSubmatchIndex(c.args)
	if at == nil {
		return fmt.Errorf("line %d has no result: %s", line, c.args)
	}
	result, err := strconv.ParseInt(c.args[at[2]:at[3]], 10, 64)
	if err != nil {
		result = -1 // "?": the program ended in it
	}
	c.args, c.end, c.result = c.args[:at[0]], line, result
	return nil
}

// fd is what the first argument is open on: a path, or a connection.
func (c call) fd() string {
	if m := fdText.FindStringSubmatch(c.args); m != nil {
		return m[1]
	}
	return ""
}

// renames returns the paths of a rename that was done.
func (c call) renames() (from, to string, ok bool) {
	if !strings.HasPrefix(c.name, "rename") || c.result < 0 {
		return "", "", false
	}
	paths := c.paths()
	if len(paths) < 2 {
		return "", "", false
	}
	return paths[0], paths[1], true
}

// unlinks returns the path of a removal that was done.
func (c call) unlinks() (path string, ok bool) {
	if !strings.HasPrefix(c.name, "unlink") || c.result < 0 {
		return "", false
	}
	paths := c.paths()
	if len(paths) == 0 {
		return "", false
	}
	return paths[0], true
}

// paths are those that the arguments name, each beside the directory that it starts from:
// os.Root gives names and no paths.
func (c call) paths() (all []string) {
	for _, m := range nameText.FindAllStringSubmatch(c.args, -1) {
		path := m[2]
		if !filepath.IsAbs(path) {
			path = filepath.Join(m[1], path)
		}
		all = append(all, path)
	}
	return all
}

func (c call) writes() bool {
	switch c.name {
	case "write", "writev", "sendto", "sendmsg":
		return true
	}
	return false
}

func (c call) syncs(path string) bool {
	return (c.name == "fsync" || c.name == "fdatasync") && c.result == 0 && c.fd() == path
}
