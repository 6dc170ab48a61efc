package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/printable"
	"github.com/trustcast/trustcast/server/registry"
)

// portLimit bounds what is asked of the network, all of it at the same time.
const portLimit = 5 * time.Second

// examinePorts connects to what this server listens on, and to the domain as hosts do.
func (n *node) examinePorts(ctx context.Context, f *findings) {
	ctx, cancel := context.WithTimeout(ctx, portLimit)
	defer cancel()
	asks := []func(*findings){
		func(f *findings) { n.examineRegistryPort(ctx, f) },
		func(f *findings) { examinePort(ctx, "ports.grpc", "agents", n.listen.grpc, f) },
		func(f *findings) { n.examineDomain(ctx, f) },
	}
	if n.listen.http != nil {
		asks = append(asks, func(f *findings) { examinePort(ctx, "ports.http", "health and metrics", n.listen.http, f) })
	}
	found := make([]findings, len(asks))
	var asking sync.WaitGroup
	for i, ask := range asks {
		asking.Go(func() { ask(&found[i]) })
	}
	asking.Wait()
	for _, part := range found {
		f.checks = append(f.checks, part.checks...)
	}
	n.examineSocket(f)
	switch {
	case n.cfg.GossipListen == off:
		f.ok("ports.gossip", "", "gossip is off; streams and polls go on")
	case n.gossip == nil:
		f.warn("ports.gossip", "", "gossip is off because its port could not be opened", "see the log, or give another --gossip-listen")
	default:
		f.ok("ports.gossip", n.gossip.Address(), "gossip listens on "+n.gossip.Address())
	}
}

// examineRegistryPort: what is served verifies with what hosts have, by each name.
func (n *node) examineRegistryPort(ctx context.Context, f *findings) {
	address, said := here(n.listen.registry), map[string]bool{}
	for _, name := range n.names {
		if said[name.Host] {
			continue
		}
		said[name.Host] = true
		if err := n.handshake(ctx, address, name.Host); err != nil {
			f.fail("ports.registry", name.Host, fmt.Sprintf("what is served for %s on %s does not verify: %v", name.Host, address, err), "see the server's log, and `trustcast status`")
			continue
		}
		f.ok("ports.registry", name.Host, fmt.Sprintf("the registry answers for %s on %s, and verifies with the CA that hosts have", name.Host, n.listen.registry.Addr()))
	}
}

// handshake verifies as a host that has the wanted bundle.
func (n *node) handshake(ctx context.Context, address, host string) error {
	roots := x509.NewCertPool()
	for _, root := range n.authority.Wanted().Bundle.Roots {
		roots.AddCert(root)
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// examineDomain: the name leads here, as seen from this machine. Others may see it
// otherwise, so that nothing here is more than a warning.
func (n *node) examineDomain(ctx context.Context, f *findings) {
	name := n.names[0]
	addresses, err := new(net.Resolver).LookupNetIP(ctx, "ip", name.Host)
	if err != nil {
		f.warn("ports.domain", name.String(), fmt.Sprintf("%s does not resolve here (%v)", name.Host, err), "make sure that it does on each host: in DNS, or in /etc/hosts; agents use --advertise meanwhile")
		return
	}
	for _, a := range addresses {
		if a.Unmap().IsLoopback() {
			f.warn("ports.domain", name.String(), fmt.Sprintf("%s is %s here, and Docker verifies nothing that comes from a loopback address", name.Host, a), "give it this machine's own address, if Docker here shall verify the registry as others do")
			return
		}
	}
	if err := n.handshake(ctx, name.String(), name.Host); err != nil {
		f.warn("ports.domain", name.String(), fmt.Sprintf("%s (%s) is not reached from here: %v", name, addresses[0].Unmap(), err), "see that it leads to this server, past firewalls and proxies; a network that does not lead back to itself is no mistake")
		return
	}
	f.ok("ports.domain", name.String(), fmt.Sprintf("%s (%s) leads to this registry", name, addresses[0].Unmap()))
}

// examinePort connects once.
func examinePort(ctx context.Context, id, what string, lis net.Listener, f *findings) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", here(lis))
	if err != nil {
		f.fail(id, lis.Addr().String(), fmt.Sprintf("the port for %s is open and does not answer: %v", what, err), "see this machine's firewall")
		return
	}
	_ = conn.Close() // nothing was sent
	f.ok(id, lis.Addr().String(), fmt.Sprintf("the port for %s answers on %s", what, lis.Addr()))
}

// here is an address that leads to a listener from this machine.
func here(lis net.Listener) string {
	at, err := netip.ParseAddrPort(lis.Addr().String())
	if err != nil || !at.Addr().IsUnspecified() {
		return lis.Addr().String()
	}
	return net.JoinHostPort("localhost", strconv.Itoa(int(at.Port())))
}

// examineFreePorts says who has the ports of a server that does not run.
func examineFreePorts(cfg Config, domain certs.Name, f *findings) {
	for _, p := range []struct{ id, what, flag, address string }{
		{"ports.registry", "the registry", "--listen", orDefault(cfg.RegistryListen, ":"+strconv.Itoa(domain.Port))},
		{"ports.grpc", "agents", "--grpc-listen", cfg.GRPCListen},
		{"ports.http", "health and metrics", "--http-listen", cfg.HTTPListen},
		{"ports.gossip", "gossip", "--gossip-listen", cfg.GossipListen},
	} {
		if p.address == off {
			continue
		}
		lis, err := net.Listen("tcp", p.address)
		if err == nil {
			_ = lis.Close() // it was only tried
			f.ok(p.id, p.address, fmt.Sprintf("the port for %s, %s, is free", p.what, p.address))
			continue
		}
		holder, manager := "", false
		if errors.Is(err, syscall.EADDRINUSE) {
			holder, manager = listenerOn(p.address)
		}
		switch {
		case manager:
			f.ok(p.id, p.address, fmt.Sprintf("systemd holds the port for %s, %s, for the server", p.what, p.address))
		case p.id == "ports.gossip": // never fatal
			f.warn(p.id, p.address, fmt.Sprintf("the port for %s cannot be opened: %v%s", p.what, err, inBrackets(holder)), "end what uses it, or give another address with "+p.flag)
		default:
			f.fail(p.id, p.address, fmt.Sprintf("the port for %s cannot be opened: %v%s", p.what, err, inBrackets(holder)), "end what uses it, or give another address with "+p.flag)
		}
	}
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// examineStoppedEngine: Docker answers, if the server will need it.
func examineStoppedEngine(ctx context.Context, cfg Config, f *findings) {
	if cfg.EngineName != engineDocker {
		f.ok("engine.up", cfg.EngineName, "the engine is a part of the server")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, portLimit)
	defer cancel()
	if err := registry.DockerAnswers(ctx, ""); err != nil {
		text, fix := advised(err.Error())
		f.fail("engine.up", cfg.EngineName, text, fix)
		return
	}
	f.ok("engine.up", cfg.EngineName, "the Docker engine answers")
}

// listenerOn names the process that listens on a TCP port, like "nginx (pid 12)"; ""
// when /proc does not tell this user. manager: it is systemd, which holds the port for
// the server. Any process can be called so: root believes the first alone, others see
// their own and no others.
func listenerOn(address string) (found string, manager bool) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", false
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return "", false
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listening(table, number, inodes)
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "", false
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		inode, is := strings.CutPrefix(strings.TrimSuffix(target, "]"), "socket:[")
		if err != nil || !is || !inodes[inode] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue // it has ended
		}
		comm := strings.TrimSpace(string(name))
		found = fmt.Sprintf("%s (pid %s) listens there", printable.Clip(comm, len(comm)), pid)
		manager = comm == "systemd" && (pid == "1" || os.Geteuid() != 0)
		if pid == "1" {
			break // it gave the socket to others, who are no holders
		}
	}
	return found, manager
}

// listening adds the inodes of sockets that listen on a port (proc(5)).
func listening(table string, port int, inodes map[string]bool) {
	file, err := os.Open(table)
	if err != nil {
		return // no IPv6
	}
	defer func() { _ = file.Close() }() // read-only
	const local, state, inode, listen = 1, 3, 9, "0A"
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > inode && fields[state] == listen && strings.HasSuffix(fields[local], fmt.Sprintf(":%04X", port)) {
			inodes[fields[inode]] = true
		}
	}
}

// lockedBy is the process that has the lock of a data directory, 0 for none.
func lockedBy(l layout) int {
	info, err := os.Stat(filepath.Join(l.state(), "lock"))
	if err != nil {
		return 0
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	const kind, pid, inode = 1, 4, 5 // 1: FLOCK ADVISORY WRITE 2091 08:01:123 0 EOF
	for line := range strings.Lines(string(locks)) {
		fields := strings.Fields(line)
		if len(fields) > inode && fields[kind] == "FLOCK" && strings.HasSuffix(fields[inode], fmt.Sprintf(":%d", stat.Ino)) {
			if n, err := strconv.Atoi(fields[pid]); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}
