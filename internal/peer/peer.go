// Package peer says who is at the other end of a Unix socket.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
)

// OtherError says that somebody else listens at a socket than should.
type OtherError struct {
	Path string
	// UID is who does, Want who should.
	UID  int
	Want []int
}

func (e *OtherError) Error() string {
	return fmt.Sprintf("uid %d answers on %s instead of %v: find out who put it there", e.UID, e.Path, e.Want)
}

// Dial connects to a Unix socket at which a process of one of these users listens.
// Whoever can write in the socket's directory could have put another there, or a link
// to one: it is sent nothing, and the error is an OtherError.
func Dial(ctx context.Context, path string, uids ...int) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	uid, err := UID(conn.(*net.UnixConn)) // what a dialer of "unix" returns
	if err == nil && !slices.Contains(uids, uid) {
		err = &OtherError{Path: path, UID: uid, Want: uids}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// UID is the user of the process that connected, or that listens (SO_PEERCRED), as it
// was when the connection was made.
func UID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask who is at %s: %w", conn.RemoteAddr(), err)
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("ask who is at %s: %w", conn.RemoteAddr(), err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("ask who is at %s: %w", conn.RemoteAddr(), credErr)
	}
	return int(cred.Uid), nil
}
