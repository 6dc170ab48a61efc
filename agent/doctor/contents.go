package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/trustcast/trustcast/internal/foreign"
)

// contents is what a runtime takes from one directory.
type contents struct {
	roots []*x509.Certificate
	// certificates of each *.crt that was read.
	files  map[string][]*x509.Certificate
	faults []fault
	// blind: something could not be looked at, since who asks is not root.
	blind bool
	// many: there is more in it than is looked at.
	many bool
	size int // of the certificates' files that were read, in bytes
	// unverified: a hosts.toml says that nothing is verified.
	unverified bool
}

// fault is something in a directory that should not be there.
type fault struct {
	id, path, text, fix string
	// breaks: every pull fails over it.
	breaks bool
}

func (c *contents) fault(breaks bool, id, path, fix, format string, args ...any) {
	c.faults = append(c.faults, fault{id: id, path: path, fix: fix, text: fmt.Sprintf(format, args...), breaks: breaks})
}

func (c *contents) broken() bool {
	for _, f := range c.faults {
		if f.breaks {
			return true
		}
	}
	return false
}

// mostBytes of the certificates in a directory are read: users make what they like in
// some, and it shall not fill this host's memory.
const mostBytes = 4 << 20

// read takes from dir what the runtime would.
func (r runtime) read(dir string) *contents {
	c := &contents{files: map[string][]*x509.Certificate{}}
	entries, more, err := foreign.ReadDir(dir)
	c.many = more
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		c.blind = true
		return c
	case err != nil:
		c.fault(true, "files.directory", dir, "mv "+quote(dir)+" "+quote(dir+".away"), "%s cannot be read as a directory (%v)", dir, err)
		return c
	}
	if r.manner == strict && r.hostsFile(c, dir) {
		return c
	}
	names := map[string]bool{}
	for _, entry := range entries {
		names[entry.Name()] = true
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch filepath.Ext(path) {
		case ".crt":
			r.readCA(c, path)
		case ".cert":
			r.readPair(c, path, names)
		case ".key":
			cert := strings.TrimSuffix(entry.Name(), ".key") + ".cert"
			if !names[cert] {
				c.fault(r.manner != strict, "files.pair", path, remove(path), "has no %s beside it", cert)
			}
		}
	}
	return c
}

// readCA reads one *.crt.
func (r runtime) readCA(c *contents, path string) {
	link, err := os.Lstat(path)
	if err != nil {
		return // gone meanwhile
	}
	isLink := link.Mode()&fs.ModeSymlink != 0
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.fault(r.manner != tolerant, "files.dangling", path, remove(path), "is a symbolic link to nothing")
		return
	case err != nil && !errors.Is(err, fs.ErrPermission):
		c.fault(true, "files.unreadable", path, remove(path), "cannot be read (%v)", err)
		return
	case err == nil && info.IsDir():
		c.fault(r.manner != strict || isLink, "files.folder", path, "mv "+quote(path)+" "+quote(path+".away"), "is a directory with the name of a certificate")
		return
	case err == nil && !info.Mode().IsRegular():
		c.fault(true, "files.special", path, remove(path), "is no regular file")
		return
	}
	if c.size >= mostBytes {
		c.many = true
		return
	}
	data, _, readErr := foreign.ReadFile(path)
	c.size += len(data)
	if readErr != nil && os.Geteuid() != 0 {
		c.blind = true
		return
	}
	if readErr != nil || err != nil || !r.mayRead(info) {
		c.fault(true, "files.unreadable", path, unlinked(path, "chmod 0644 "), "cannot be read by %s (%v)", r.title, link.Mode())
		return
	}
	found := certificates(data)
	if len(found) == 0 {
		what := "holds no certificate"
		if len(data) == 0 {
			what = "is empty"
		}
		c.fault(r.manner == strict, "files.garbage", path, remove(path), "%s, and so gives no trust", what)
	}
	c.files[path] = found
	c.roots = append(c.roots, found...)
}

// certificates are those that a pool of roots would take from a file: what is none is
// passed over.
func certificates(data []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, cert)
		}
	}
}

// readPair reads a client's certificate and its key.
func (r runtime) readPair(c *contents, path string, names map[string]bool) {
	key := strings.TrimSuffix(path, ".cert") + ".key"
	if !names[filepath.Base(key)] {
		if r.manner != strict {
			c.fault(true, "files.pair", path, "mv "+quote(path)+" "+quote(path+".away")+"   # or put its key beside it", "has no %s beside it", filepath.Base(key))
			return
		}
		key = path // containerd wants both in one file then
	}
	certPEM, _, err := foreign.ReadFile(path)
	keyPEM, _, keyErr := foreign.ReadFile(key)
	if err = errors.Join(err, keyErr); err == nil {
		_, err = tls.X509KeyPair(certPEM, keyPEM)
	}
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		c.blind = true
	default:
		c.fault(true, "files.pair", path, "replace "+quote(path)+" and "+quote(key)+" by a pair that fits, or move both away", "is no pair with %s (%v)", filepath.Base(key), err)
	}
}

// hostsFile looks at containerd's hosts.toml, which turns the look for *.crt off; it
// says whether it does.
func (r runtime) hostsFile(c *contents, dir string) bool {
	path := filepath.Join(dir, "hosts.toml")
	data, _, err := foreign.ReadFile(path)
	if err != nil || len(strings.TrimSpace(string(data))) == 0 {
		return false
	}
	// Compiled here: an agent that only runs shall not carry them.
	ca, text := regexp.MustCompile(`(?m)^\s*ca\s*=\s*(.+)$`), regexp.MustCompile(`"([^"]*)"|'([^']*)'`)
	lines := ca.FindAllSubmatch(data, -1)
	skips := regexp.MustCompile(`(?m)^\s*skip_verify\s*=\s*true`).Match(data)
	if !regexp.MustCompile(`(?m)^\s*\[\s*host`).Match(data) {
		if len(lines) == 0 || skips {
			c.fault(false, "files.hosts", path, "add a [host] table with ca = to it", "has no [host] table: containerd 1 passes such a file over and reads the *.crt beside it, newer ones may read nothing else")
		}
		return false
	}
	c.unverified = skips
	for _, line := range lines {
		for _, s := range text.FindAllSubmatch(line[1], -1) {
			name := string(s[1]) + string(s[2])
			if !filepath.IsAbs(name) {
				name = filepath.Join(dir, name)
			}
			r.readCA(c, name)
		}
	}
	return true
}

func ownerOf(info os.FileInfo) (uid int, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}

func remove(path string) string { return "rm " + quote(path) }

// unlinked is a command about a path that follows links, unless the path is one: then
// what it leads to is not ours to change.
func unlinked(path, command string) string {
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return remove(path) + "   # a link: put what it should lead to in its place"
	}
	return command + quote(path)
}

// quote makes a word of a shell's command line.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._:-@+=,", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 && s != "" {
		return s
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return escaped(s)
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// escaped is a word of what a terminal would not show.
func escaped(s string) string {
	var b strings.Builder
	b.WriteString("$'")
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String() + "'"
}
