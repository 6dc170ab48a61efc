package durable

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Pending is a file that is being written: nobody sees it under its name before
// Commit. What a killed process leaves is found by Strays.
type Pending struct {
	path string
	file *renameio.PendingFile
}

// Create begins to write path, for content that is too large for WriteFile. End
// with Commit or Discard.
func Create(path string, perm fs.FileMode) (*Pending, error) {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(perm), renameio.IgnoreUmask())
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &Pending{path, f}, nil
}

// Write appends p.
func (p *Pending) Write(data []byte) (int, error) { return p.file.Write(data) }

// Commit replaces the file at the path, durably.
func (p *Pending) Commit() error {
	reached(beforeRename, p.path)
	if err := p.file.CloseAtomicallyReplace(); err != nil { // fsync, close, rename
		return fmt.Errorf("write %s: %w", p.path, err)
	}
	if err := syncDir(filepath.Dir(p.path)); err != nil {
		return err
	}
	reached(afterRename, p.path)
	return nil
}

// Discard removes what was written; after Commit it does nothing.
func (p *Pending) Discard() error { return p.file.Cleanup() }
