package agent

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watchDir calls changed when something happens in dir or its sub-directories,
// until ctx ends. A directory that is missing is watched through its parent.
func watchDir(ctx context.Context, dir string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // nothing to lose
	if err := watchTree(w, dir); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if concerns(e.Name, dir) && (e.Has(fsnotify.Create) || e.Has(fsnotify.Remove)) {
				if err := watchTree(w, dir); err != nil {
					return err
				}
			}
			if e.Op != fsnotify.Chmod && concerns(e.Name, dir) {
				changed()
			}
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			return err
		}
	}
}

// concerns says whether path is dir, below it or above it. A parent that is
// watched while dir is missing may be a busy place such as /tmp, and each wake
// is a report to the server.
func concerns(path, dir string) bool {
	path, dir = filepath.Clean(path)+"/", filepath.Clean(dir)+"/"
	return strings.HasPrefix(path, dir) || strings.HasPrefix(dir, path)
}

// watchTree adds dir and one level below it; if dir is missing, its nearest
// parent that is there.
func watchTree(w *fsnotify.Watcher, dir string) error {
	matches, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, sub := range matches {
		_ = w.Add(sub) // gone again, or a plain file: its directory is watched
	}
	for at := dir; ; at = filepath.Dir(at) {
		err := w.Add(at)
		if err == nil {
			return nil
		}
		if at == filepath.Dir(at) {
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
	}
}
