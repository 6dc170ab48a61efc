package server

import (
	"context"
	"errors"
	"net"
	"strconv"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	localpeer "github.com/trustcast/trustcast/internal/peer"
)

// peerCredentials learns who is at the other end of a Unix socket
// (SO_PEERCRED). Admission is the socket's file mode; this is for the log.
type peerCredentials struct{}

// operator is the caller of an admin call; uid is -1 where the connection is no
// Unix socket (in-memory tests).
type operator struct {
	credentials.CommonAuthInfo
	uid int
}

// AuthType names the mechanism.
func (operator) AuthType() string { return "peercred" }

func callerUID(ctx context.Context) int {
	if p, ok := peer.FromContext(ctx); ok {
		if o, ok := p.AuthInfo.(operator); ok {
			return o.uid
		}
	}
	return -1
}

// callerName is the operator in the history.
func callerName(ctx context.Context) string { return "uid " + strconv.Itoa(callerUID(ctx)) }

// ServerHandshake reads the caller's uid; no bytes are exchanged.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	o := operator{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, uid: -1}
	if unix, ok := conn.(*net.UnixConn); ok {
		var err error
		if o.uid, err = localpeer.UID(unix); err != nil {
			return nil, nil, err
		}
	}
	return conn, o, nil
}

// ClientHandshake is never used: these are a server's credentials.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for the server's side")
}

// Info describes the protocol to gRPC.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone returns a copy.
func (peerCredentials) Clone() credentials.TransportCredentials { return peerCredentials{} }

// OverrideServerName does nothing: there is no name to check.
func (peerCredentials) OverrideServerName(string) error { return nil }
