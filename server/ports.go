package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/trustcast/trustcast/internal/durable"
)

// listeners are the open ports of a server.
type listeners struct {
	registry, grpc, admin, http net.Listener
}

// Names of what Config.Sockets may hold, and of the ports in the log.
const (
	socketRegistry = "registry"
	socketGRPC     = "grpc"
	socketHTTP     = "http"
)

// SocketNames are the names that Config.Sockets may have.
func SocketNames() []string { return []string{socketRegistry, socketGRPC, socketHTTP} }

// openPorts opens all listeners or none.
func (n *node) openPorts() (err error) {
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	listen := orDefault(n.cfg.RegistryListen, ":"+strconv.Itoa(n.names[0].Port))
	if n.listen.registry, err = n.listenTCP(socketRegistry, "--listen", listen); err != nil {
		return err
	}
	if n.listen.grpc, err = n.listenTCP(socketGRPC, "--grpc-listen", n.cfg.GRPCListen); err != nil {
		return err
	}
	if n.cfg.HTTPListen != off || n.cfg.Sockets[socketHTTP] != nil {
		if n.listen.http, err = n.listenTCP(socketHTTP, "--http-listen", n.cfg.HTTPListen); err != nil {
			return err
		}
	}
	n.listen.admin, err = n.listenAdmin()
	return err
}

// listenTCP opens a port, or takes the socket that is open already: whoever connects to
// that while no server runs waits in it.
func (n *node) listenTCP(what, flag, address string) (net.Listener, error) {
	if lis := n.cfg.Sockets[what]; lis != nil {
		n.warnOverridden(flag, lis)
		return lis, nil
	}
	lis, err := n.cfg.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("the %s port cannot be opened (%w): end what uses it, or give another address with %s", what, err, flag)
	}
	return lis, nil
}

// listenAdmin opens the operators' socket, 0600, over one that a killed server
// left: the lock on the directory says that nobody serves it.
func (n *node) listenAdmin() (net.Listener, error) {
	path := n.layout.socket()
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the admin socket's path %s has %d characters and the system allows %d: give a shorter --data-dir", path, len(path), maxSocketPath)
	}
	if err := durable.Remove(path); err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	lis, err := n.cfg.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	// The directory is 0700, so nobody can connect before this.
	if err := os.Chmod(path, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = lis.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return lis, nil
}

// maxSocketPath is what a sockaddr_un holds on Linux without its final zero.
const maxSocketPath = 107

// close closes whatever is open; closing twice does no harm.
func (n *node) close() {
	for _, lis := range []net.Listener{n.listen.registry, n.listen.grpc, n.listen.admin, n.listen.http} {
		if lis != nil {
			_ = lis.Close()
		}
	}
	_ = n.direct.Close() // nothing was written
	if n.embedded == nil {
		return
	}
	if err := n.embedded.End(); err != nil {
		n.log.Warn("the registry did not end well", "err", err)
	}
}

func (n *node) logListening() {
	for _, port := range []struct {
		what string
		lis  net.Listener
	}{{socketRegistry, n.listen.registry}, {socketGRPC, n.listen.grpc}, {socketHTTP, n.listen.http}} {
		switch port.lis {
		case nil:
		case n.cfg.Sockets[port.what]:
			n.log.Info("listening", "what", port.what, "address", port.lis.Addr().String(), "opened_by", "systemd")
		default:
			n.log.Info("listening", "what", port.what, "address", port.lis.Addr().String())
		}
	}
	if n.gossip != nil {
		n.log.Info("listening", "what", "gossip", "address", n.gossip.Address())
	}
	n.log.Info("serving", "domain", n.names[0].String(), "generation", n.authority.Wanted().Bundle.Generation, "data", filepath.Clean(n.layout.dir))
}
