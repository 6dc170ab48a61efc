package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrRunning says that another agent runs on the data directory.
var ErrRunning = errors.New("an agent is running")

// A `status` holds a lock for a moment, to see whether it is held. It is tried so often,
// and so long after.
const (
	lockTries = 5
	lockAgain = 20 * time.Millisecond
)

// lock takes the membership for one process at a time.
func (s store) lock() (release func(), err error) { return s.take(lockFile) }

// take takes one of the locks.
func (s store) take(name string) (release func(), err error) {
	path := filepath.Join(s.dir, name)
	for try := 1; ; try++ {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the agent's data directory: %w", forWhom(err))
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && isAt(f, path) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
		if try == lockTries {
			return nil, fmt.Errorf("%w on %s: stop it first, or give this one its own --data-dir", ErrRunning, s.dir)
		}
		time.Sleep(lockAgain)
	}
}

// Runs says whether an agent runs on cfg's data directory, whatever it has joined.
func Runs(cfg Config) bool { return store{cfg.DataDir}.held(runFile) }

// isAt: the file is still what path names; a leave removes it with the rest.
func isAt(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(have, there)
}

// held says whether somebody has the lock.
func (s store) held(name string) bool {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // read-only
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
