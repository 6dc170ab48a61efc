package edge

import (
	"fmt"
	"net"

	"github.com/trustcast/trustcast/internal/peer"
)

// checkPeer wants a process of this user at the other end of a Unix socket: the
// directory is a replica's own, which could put a link to another program's socket
// there.
func checkPeer(conn net.Conn, uid int) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%s is no Unix socket", conn.RemoteAddr())
	}
	got, err := peer.UID(c)
	if err != nil {
		return err
	}
	if got != uid {
		return fmt.Errorf("uid %d answers on %s instead of the replica's %d", got, conn.RemoteAddr(), uid)
	}
	return nil
}
