package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long events are gathered after the first, which is told at once:
	// a busy neighbour must not keep the agent looking.
	settle = 20 * time.Millisecond
	// above is how many directories over the watched one are watched too: when its
	// parent is moved away, only the parent's parent tells.
	above = 2
)

// watch nudges the loop when something happens where our files are: in dirs, until
// others are to be watched. Without events, the tick finds drift.
func (a *membership) watch(ctx context.Context, dirs []string) error {
	for ctx.Err() == nil {
		round, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		for _, dir := range dirs {
			all.Go(func() { a.watchOne(round, dir) })
		}
		select {
		case <-ctx.Done():
		case dirs = <-a.moved:
			a.stirred() // what happens until they are watched is not told
		}
		stop()
		all.Wait()
	}
	return nil
}

// watchOne watches one directory; a watch that failed is tried again each tick.
func (a *membership) watchOne(ctx context.Context, dir string) {
	for said := false; ; {
		err := a.cfg.WatchFile(ctx, dir, a.stirred)
		if err == nil || ctx.Err() != nil {
			return // what it ended with, we ended it
		}
		if !said {
			a.log.Warn("changes of files are found by the slow check alone", "err", fmt.Errorf("watch %s: %w", dir, err))
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.tick()):
		}
	}
}

// stirred wakes the loop to look at the files.
func (a *membership) stirred() {
	select {
	case a.drift <- struct{}{}:
	default:
	}
}

// watchDir calls changed when something happens in dir or its sub-directories, and
// once at the start, until ctx ends. Directories may go, come back and be replaced,
// dir and its parent among them.
func watchDir(ctx context.Context, dir string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // nothing to lose
	dir = filepath.Clean(dir)
	if err := watchTree(w, dir); err != nil {
		return err
	}
	changed() // what happened before the watch
	var settled <-chan time.Time
	for more := false; ; {
		stirred := false
		select {
		case <-ctx.Done():
			return nil
		case <-settled:
			settled, stirred, more = nil, more, false
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if !concerns(e.Name, dir) || isTemporary(e.Name) {
				continue
			}
			if structural(e, dir) {
				if err := watchTree(w, dir); err != nil {
					return err
				}
			}
			stirred = true
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
			if err := watchTree(w, dir); err != nil { // what was lost may be anything
				return err
			}
			stirred = true
		}
		switch {
		case !stirred:
		case settled != nil:
			more = true
		default:
			changed()
			settled = time.After(settle)
		}
	}
}

// concerns says whether path is dir, below it or above it. A parent may be a busy
// place such as /tmp, and each wake is a look at the files.
func concerns(path, dir string) bool {
	path, dir = filepath.Clean(path)+"/", filepath.Clean(dir)+"/"
	return strings.HasPrefix(path, dir) || strings.HasPrefix(dir, path)
}

// isTemporary: this is how a file that is being written is called, by us and by others
// who write atomically; its renaming tells the rest.
func isTemporary(path string) bool {
	name := filepath.Base(path)
	last := name[len(name)-1]
	return name[0] == '.' && '0' <= last && last <= '9'
}

// structural: another directory may be at one of the watched paths now.
func structural(e fsnotify.Event, dir string) bool {
	return e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 && filepath.Dir(filepath.Dir(e.Name)) != dir
}

// watchTree watches dir, one level below it, and the directories above it; if dir is
// missing, from the nearest parent that is there. Outer ones come first, so that
// whatever changes meanwhile is told. What was watched before is not any more: the
// kernel watches directories, not paths, and one that was moved away would be watched
// for ever.
func watchTree(w *fsnotify.Watcher, dir string) error {
	for _, path := range w.WatchList() {
		_ = w.Remove(path) // it may be gone
	}
	path, missing := []string{dir}, true
	for at := dir; ; {
		if _, err := os.Stat(at); err == nil {
			missing = false
		}
		parent := filepath.Dir(at)
		if parent == at || !missing && len(path) > above {
			break
		}
		at = parent
		path = append(path, at)
	}
	var outermost error
	for i := len(path) - 1; i >= 0; i-- {
		if err := w.Add(path[i]); err != nil && (i == len(path)-1 || errors.Is(err, syscall.ENOSPC)) {
			outermost = errors.Join(outermost, err)
		}
	}
	if outermost != nil {
		return outermost
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil //nolint:nilerr // its parent tells when it can be read
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			_ = w.Add(filepath.Join(dir, e.Name())) // gone again, or no directory
		}
	}
	return nil
}
