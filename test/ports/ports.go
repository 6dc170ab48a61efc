// Package ports finds ports for servers that must know theirs before they run, or have
// it again after a restart.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Below 32768 Linux gives a port only to who names it (ip_local_port_range): one that is
// closed for a while stays free. Registered services are rare from 20000 on.
const lowest, beyond = 20000, 32000

const tries = 1000

var (
	mu    sync.Mutex
	given = map[int]bool{} // by this process
)

// Free returns an address on host whose port nobody listens at, for TCP and UDP; this
// process gets none twice.
func Free(host string) (address string, err error) {
	mu.Lock()
	defer mu.Unlock()
	for range tries {
		port := lowest + rand.IntN(beyond-lowest)
		if given[port] {
			continue
		}
		address = net.JoinHostPort(host, strconv.Itoa(port))
		if err = probe(address); err == nil {
			given[port] = true
			return address, nil
		}
	}
	return "", fmt.Errorf("no free port between %d and %d on %s: %w", lowest, beyond, host, err)
}

func probe(address string) error {
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = lis.Close() }() // it only had to open
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	return packets.Close()
}
