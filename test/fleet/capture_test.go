//go:build linux

package fleet_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

const (
	// allPackets, in network order: a bridge takes the packets of its ports
	// before those who listen for one protocol are asked.
	allPackets = syscall.ETH_P_ALL<<8 | syscall.ETH_P_ALL>>8
	udpInIP    = 17
	udpHeader  = 8
	longestIP  = 64 << 10
	lookAround = 100 * time.Millisecond // how long one read of the cable may take
)

// captureGossip reads sealed gossip packets off a host's cable until there are
// enough.
func (n *network) captureGossip(name string, enough int, bound time.Duration) ([][]byte, error) {
	link, err := net.InterfaceByName(n.link(name))
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, allPackets)
	if err != nil {
		return nil, fmt.Errorf("listen on the cable of %s: %w", name, err)
	}
	defer func() { _ = syscall.Close(fd) }()
	wait := syscall.NsecToTimeval(int64(lookAround))
	if err := errors.Join(
		syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: allPackets, Ifindex: link.Index}),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait),
	); err != nil {
		return nil, fmt.Errorf("listen on the cable of %s: %w", name, err)
	}
	var packets [][]byte
	buf := make([]byte, longestIP)
	for deadline := time.Now().Add(bound); len(packets) < enough; {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d gossip packets on the cable of %s, want %d", len(packets), name, enough)
		}
		size, _, err := syscall.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // nothing came
		}
		if p := gossipIn(buf[:size]); p != nil {
			packets = append(packets, append([]byte(nil), p...))
		}
	}
	return packets, nil
}

// gossipIn returns the payload of an IP packet to the gossip port, or nil.
func gossipIn(packet []byte) []byte {
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != udpInIP {
		return nil
	}
	udp := packet[min(len(packet), int(packet[0]&0xf)*4):]
	if len(udp) <= udpHeader || strconv.Itoa(int(binary.BigEndian.Uint16(udp[2:]))) != gossipPort {
		return nil
	}
	return udp[udpHeader:min(len(udp), int(binary.BigEndian.Uint16(udp[4:])))]
}
