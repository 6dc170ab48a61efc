package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// landings says when files were renamed into their place. Whoever writes them syncs
// before the rename, and the kernel tells of the rename when it has happened, so the
// moment is after the sync, whatever program made it. It is read on this side of the
// queue: a busy machine makes it later, never earlier, for ours and for peers alike.
type landings struct {
	queue *os.File
	dirs  map[uint32]string // by watch

	mu    sync.Mutex
	seen  map[string][]time.Time // by path, since the last forget
	news  chan struct{}          // one slot
	ended error                  // why nothing is seen any more
}

// watchLandings watches the directories of files, which must exist. Close ends it.
func watchLandings(files ...string) (*landings, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) { // each agent has two of them
		err = fmt.Errorf("%w: allow this user more watches while the bench runs, by `sysctl fs.inotify.max_user_instances=1024`", err)
	}
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &landings{queue: os.NewFile(uintptr(fd), "inotify"), dirs: map[uint32]string{}, seen: map[string][]time.Time{}, news: make(chan struct{}, 1)}
	for _, f := range files {
		dir := filepath.Dir(f)
		id, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", dir, err), w.close())
		}
		w.dirs[uint32(id)] = dir //nolint:gosec // the kernel counts from 1
	}
	go w.read() // ends with close
	return w, nil
}

func (w *landings) close() error { return w.queue.Close() }

func (w *landings) read() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.queue.Read(buffer)
		now := time.Now()
		w.mu.Lock()
		if err != nil {
			w.ended = fmt.Errorf("watch files: %w", err)
		}
		for b := buffer[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
			id, mask, length := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length]), "\x00")
			if mask&unix.IN_Q_OVERFLOW != 0 {
				w.ended = errors.New("watch files: more happened than the kernel keeps")
			}
			path := filepath.Join(w.dirs[id], name)
			w.seen[path] = append(w.seen[path], now)
			b = b[unix.SizeofInotifyEvent+length:]
		}
		w.mu.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// forget starts anew: what landed before does not count.
func (w *landings) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.seen)
}

// last waits until each of the files has landed for the nth time since forget, and
// returns when the last of them did.
func (w *landings) last(ctx context.Context, nth int, files ...string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		w.mu.Lock()
		var last time.Time
		missing := slices.IndexFunc(files, func(f string) bool {
			times := w.seen[f]
			if len(times) >= nth && times[nth-1].After(last) {
				last = times[nth-1]
			}
			return len(times) < nth
		})
		ended := w.ended
		w.mu.Unlock()
		switch {
		case ended != nil:
			return last, ended
		case missing < 0:
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("%s has not landed: %w", files[missing], ctx.Err())
		case <-w.news:
		}
	}
}
