// Package records keeps the server's durable records: small JSON values under
// names such as "authority" or "hosts/4f1c…", each with a revision.
//
// Every change is a compare-and-swap by revision, so that the store can move to
// etcd when several servers share one registry. Now it is a directory of files
// read once at Open and written through internal/durable. It knows nothing of
// what the records mean. One process at a time: the server holds a lock on the
// directory (see Lock).
package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"

	"github.com/trustcast/trustcast/internal/durable"
)

// Format is the version of the record files. A file with a greater one was
// written by a newer program and is refused.
const Format = 1

// maxRecord bounds a record file (bytes); the largest real one, an authority
// with 16 predecessors, is about 40 kB.
const maxRecord = 4 << 20

var (
	// ErrNotFound says that no record has this name.
	ErrNotFound = errors.New("no such record")
	// ErrConflict says that the record changed since it was read: read it
	// again and decide again.
	ErrConflict = errors.New("the record was changed meanwhile")
)

// names are lower-case path parts; nothing that could lead out of the directory.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)?$`)

// Store is an open directory of records. Its methods are safe for concurrent use.
type Store struct {
	dir string

	mu      sync.Mutex
	records map[string]file                       // by name
	watches map[string]map[chan struct{}]struct{} // by what is watched; see Watch
}

// file is what a record looks like on disk.
type file struct {
	Format int             `json:"format"`
	Rev    uint64          `json:"rev"`
	Value  json.RawMessage `json:"value"`
}

// Open reads every record under dir, which must exist.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, records: map[string]file{}, watches: map[string]map[chan struct{}]struct{}{}}
	err := walk(dir, func(name, path string) error {
		if name == "" {
			return os.Remove(path)
		}
		f, err := readFile(path)
		if err != nil {
			return err
		}
		s.records[name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open records in %s: %w", dir, err)
	}
	return s, nil
}

// walk calls each with the name and the path of every record under dir, and with no name
// for the temporary file of a killed write.
func walk(dir string, each func(name, path string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, isRecord := strings.CutSuffix(d.Name(), ".json")
		switch {
		case d.IsDir():
			return nil
		case strings.HasPrefix(d.Name(), "."):
			return each("", path)
		case !isRecord:
			return nil
		}
		rel, err := filepath.Rel(dir, filepath.Dir(path))
		if err != nil {
			return err
		}
		return each(filepath.ToSlash(filepath.Join(rel, name)), path)
	})
}

// Read decodes one record of a directory that another process may be changing. It
// changes nothing, not even what a killed write left.
func Read(dir, name string, value any) error {
	f, err := readFile((&Store{dir: dir}).path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("read records in %s: %w", dir, err)
	}
	_, err = get(map[string]file{name: f}, name, value)
	return err
}

func readFile(path string) (file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return file{}, err
	}
	if info.Size() > maxRecord {
		return file{}, fmt.Errorf("record %s is %d bytes; at most %d are read", path, info.Size(), maxRecord)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return file{}, err
	}
	return parse(path, data)
}

func parse(path string, data []byte) (file, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return file{}, fmt.Errorf("record %s is damaged (%w): restore it from a backup", path, err)
	}
	if f.Format > Format {
		return file{}, fmt.Errorf("record %s has format %d, written by a newer trustcast; this one reads up to %d: install the newer version again", path, f.Format, Format)
	}
	// The last revision has none after it.
	if f.Format < 1 || f.Rev == 0 || f.Rev == math.MaxUint64 || len(f.Value) == 0 {
		return file{}, fmt.Errorf("record %s is damaged (no format, revision or value): restore it from a backup", path)
	}
	return f, nil
}

// Get decodes the record called name into value and returns its revision.
func (s *Store) Get(name string, value any) (rev uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return get(s.records, name, value)
}

// decode is strict: an unknown field was written by a program that knew more
// than this one, and dropping it would lose it at the next write.
func decode(data []byte, value any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(value)
}

// List returns the names that start with prefix, sorted.
func (s *Store) List(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.records {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// Put writes value as the record called name if its revision is still rev
// (0: if it does not exist), durably, and returns the new revision. Otherwise
// nothing changes and the error is ErrConflict.
func (s *Store) Put(name string, rev uint64, value any) (uint64, error) {
	if !validName.MatchString(name) {
		return 0, fmt.Errorf("record name %q: want lower-case letters, digits and dashes, with one slash at most", name)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("encode record %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[name].Rev != rev {
		return 0, fmt.Errorf("write record %s: %w", name, ErrConflict)
	}
	f := file{Format: Format, Rev: rev + 1, Value: raw}
	data, err := encode(name, f)
	if err != nil {
		return 0, err
	}
	if len(data) > maxRecord {
		return 0, fmt.Errorf("write record %s: it has %d bytes and the next start reads at most %d", name, len(data), maxRecord)
	}
	path := s.path(name)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, fmt.Errorf("write record %s: %w", name, err)
	}
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return 0, fmt.Errorf("write record %s: %w", name, err)
	}
	s.records[name] = f
	s.nudge(name)
	return f.Rev, nil
}

// Delete removes the record called name if its revision is still rev.
func (s *Store) Delete(name string, rev uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[name].Rev != rev || rev == 0 {
		return fmt.Errorf("delete record %s: %w", name, ErrConflict)
	}
	if err := durable.Remove(s.path(name)); err != nil {
		return fmt.Errorf("delete record %s: %w", name, err)
	}
	delete(s.records, name)
	s.nudge(name)
	return nil
}

// Watch returns a one-slot channel that is nudged after a record changed: the one
// called what, one of the directory what ("hosts/"), or any (""). Read the newest
// then. stop ends it.
func (s *Store) Watch(what string) (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[what] == nil {
		s.watches[what] = map[chan struct{}]struct{}{}
	}
	s.watches[what][c] = struct{}{}
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches[what], c)
		if len(s.watches[what]) == 0 {
			delete(s.watches, what)
		}
	}
}

// nudge wakes the watches of name and no others: thousands of streams may each
// watch a record of their own. The caller holds mu.
func (s *Store) nudge(name string) {
	dir, _, in := strings.Cut(name, "/")
	watched := []string{"", name}
	if in {
		watched = append(watched, dir+"/")
	}
	for _, what := range watched {
		for c := range s.watches[what] {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

func (s *Store) path(name string) string {
	return filepath.Join(s.dir, filepath.FromSlash(name)+".json")
}
