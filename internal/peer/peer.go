// Package peer says who is at the other end of a Unix socket.
package peer

import (
	"fmt"
	"net"
	"syscall"
)

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
