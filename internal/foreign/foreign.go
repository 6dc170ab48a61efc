// Package foreign reads what others have made: users fill their homes as they like, and
// anybody a directory for certificates. Nothing is waited for, and nothing read without
// end.
package foreign

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

const (
	// MostEntries of a directory are read: one of certificates has a handful.
	MostEntries = 1000
	// Largest is how much of a file is read, in bytes: certificates have a few thousand.
	Largest = 1 << 20
)

// ErrIrregular says that there is something else than a file, such as a pipe.
var ErrIrregular = errors.New("it is no regular file")

// ReadDir is what is in a directory, sorted; more: it has further ones than these
// MostEntries.
func ReadDir(dir string) (entries []os.DirEntry, more bool, err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }() // read-only
	entries, err = f.ReadDir(MostEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	if more = len(entries) > MostEntries; more {
		entries = entries[:MostEntries]
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, more, nil
}

// ReadFile is what is in a regular file, through links too; more: it goes on after these
// bytes, which are Largest then.
func ReadFile(path string) (data []byte, more bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }() // read-only
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrIrregular
	}
	if err != nil {
		return nil, false, err
	}
	data, err = io.ReadAll(io.LimitReader(f, Largest+1))
	if more = len(data) > Largest; more {
		data = data[:Largest]
	}
	return data, more, err
}
