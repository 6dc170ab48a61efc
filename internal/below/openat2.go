package below

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// once is what opens a name in one step, instead of one for each directory on its way.
const once = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// mostTries is how often the kernel is asked again that saw something being renamed.
const mostTries = 10

// errNoOnce says that the kernel (before Linux 5.6), or a filter in front of it, does
// not know how.
var errNoOnce = errors.New("openat2 is not to be had")

// open opens a name in one step. Close the descriptor.
func (d *Dir) open(name string, flags uint64) (fd int, err error) {
	if d.conn == nil {
		return -1, errNoOnce
	}
	fd = -1
	failed := d.conn.Control(func(dir uintptr) {
		for range mostTries {
			fd, err = unix.Openat2(int(dir), name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: once})
			if err != unix.EAGAIN && err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case failed != nil:
		return -1, failed
	case err == nil:
		return fd, nil
	case err == unix.ENOSYS, err == unix.EPERM, err == unix.EINVAL:
		return -1, errNoOnce
	case err == unix.ELOOP:
		return -1, fmt.Errorf("%s is a link, or lies behind one: %w", name, ErrForeign)
	}
	return -1, &fs.PathError{Op: "open", Path: name, Err: err}
}

// openFile opens a regular file to read, in one step. Close the descriptor.
func (d *Dir) openFile(name string) (fd int, size int64, err error) {
	if fd, err = d.open(name, unix.O_RDONLY|unix.O_NONBLOCK); err != nil { // not to wait for a pipe's writer
		return -1, 0, err
	}
	if size, err = regular(fd, name); err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	return fd, size, nil
}

func regular(fd int, name string) (size int64, err error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Errorf("%s is no file: %w", name, ErrForeign)
	}
	return stat.Size, nil
}

// Size returns how many bytes a regular file has.
func (d *Dir) Size(name string) (size int64, err error) {
	fd, err := d.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, errNoOnce) {
		info, err := d.Stat(name)
		if err == nil && !info.Mode().IsRegular() {
			err = foreign(name, info)
		}
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	if err != nil {
		return 0, err
	}
	size, err = regular(fd, name)
	return size, errors.Join(err, unix.Close(fd))
}

// readOnce is Read in one step.
func (d *Dir) readOnce(name string, limit int64) (content []byte, err error) {
	fd, size, err := d.openFile(name)
	if err != nil {
		return nil, err
	}
	if size >= smallFile { // which may grow, and has its own way
		f := os.NewFile(uintptr(fd), name)
		content, err = io.ReadAll(io.LimitReader(f, limit+1))
		return content, errors.Join(err, f.Close())
	}
	content = make([]byte, min(smallFile, limit+1))
	length := 0
	for length < len(content) {
		n, err := unix.Read(fd, content[length:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, errors.Join(&fs.PathError{Op: "read", Path: name, Err: err}, unix.Close(fd))
		}
		if n == 0 {
			break
		}
		length += n
	}
	if err := unix.Close(fd); err != nil {
		return nil, err
	}
	if length == smallFile && limit >= smallFile { // it has grown meanwhile
		return d.readByFile(name, limit)
	}
	return content[:length], nil
}

// smallFile is up to which size a file is read into one buffer of it: links have
// 71 bytes.
const smallFile = 512
