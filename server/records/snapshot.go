package records

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
)

// Snapshot is all records of a store as they were at one moment, for copies of it.
type Snapshot struct{ records map[string]file }

// Snapshot returns the records as they are now. Later changes do not reach it.
func (s *Store) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{maps.Clone(s.records)}
}

// ReadSnapshot reads the records of a directory that another process may be changing. It
// changes nothing, not even what a killed write left.
func ReadSnapshot(dir string) (Snapshot, error) {
	s := Snapshot{map[string]file{}}
	err := walk(dir, func(name, path string) error {
		if name == "" {
			return nil
		}
		f, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile
		}
		s.records[name] = f
		return err
	})
	if err != nil {
		return Snapshot{}, fmt.Errorf("read records in %s: %w", dir, err)
	}
	return s, nil
}

// Names returns the names of all records, sorted.
func (s Snapshot) Names() []string { return slices.Sorted(maps.Keys(s.records)) }

// Get decodes the record called name into value and returns its revision.
func (s Snapshot) Get(name string, value any) (rev uint64, err error) {
	return get(s.records, name, value)
}

// File returns the record called name as its file in the directory holds it; the
// file is called name + ".json".
func (s Snapshot) File(name string) ([]byte, error) {
	f, ok := s.records[name]
	if !ok {
		return nil, fmt.Errorf("record %s: %w", name, ErrNotFound)
	}
	return encode(name, f)
}

func get(records map[string]file, name string, value any) (rev uint64, err error) {
	f, ok := records[name]
	if !ok {
		return 0, fmt.Errorf("record %s: %w", name, ErrNotFound)
	}
	if err := decode(f.Value, value); err != nil {
		return 0, fmt.Errorf("record %s: %w", name, err)
	}
	return f.Rev, nil
}

// encode is what a record's file holds.
func encode(name string, f file) ([]byte, error) {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode record %s: %w", name, err)
	}
	return append(data, '\n'), nil
}
