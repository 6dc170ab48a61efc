package edge

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// checkPeer wants a process of this user at the other end of a Unix socket: the
// directory is a replica's own, which could put a link to another program's socket
// there.
func checkPeer(conn net.Conn, uid int) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%s is no Unix socket", conn.RemoteAddr())
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("ask who answers on %s: %w", conn.RemoteAddr(), credErr)
	}
	if int(cred.Uid) != uid {
		return fmt.Errorf("uid %d answers on %s instead of the replica's %d", cred.Uid, conn.RemoteAddr(), uid)
	}
	return nil
}
