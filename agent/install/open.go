package install

import (
	"errors"
	"fmt"
	"os"

	"github.com/trustcast/trustcast/internal/foreign"
)

var errTooMany = errors.New("too many files")

// openRoot opens a directory to work in, and waits for nothing: with the dot, what is
// there and is no directory (a pipe that nobody writes into) is an error.
func openRoot(dir string) (*os.Root, error) { return os.OpenRoot(dir + "/.") }

// readDir lists a directory, whole or not at all.
func readDir(dir string) ([]os.DirEntry, error) {
	entries, more, err := foreign.ReadDir(dir)
	if more {
		err = fmt.Errorf("%s has %w (more than %d): remove those that nothing needs", dir, errTooMany, foreign.MostEntries)
	}
	return entries, err
}

// readAny reads somebody else's file, whole or not at all.
func readAny(path string) ([]byte, error) {
	data, more, err := foreign.ReadFile(path)
	if more {
		err = errors.New("it is no file of a sensible size")
	}
	return data, err
}
