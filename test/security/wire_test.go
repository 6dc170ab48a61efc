package security

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// The addresses of a world; a wire knows what is behind them.
const (
	registryName  = "registry.test:5000"
	serverAddress = "server.test:7443"
	evilAddress   = "evil.test:7443"
)

// wire is the network of a world: loopback TCP, or memory for simulated time.
type wire struct {
	memory bool

	mu        sync.Mutex
	listeners map[string]net.Listener
	dials     map[string]int // "who address" -> how often
}

func newWire(memory bool) *wire {
	return &wire{memory: memory, listeners: map[string]net.Listener{}, dials: map[string]int{}}
}

// listen opens a port behind an address; Unix sockets are real on loopback.
func (w *wire) listen(network, address string) (net.Listener, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lis net.Listener
	switch {
	case w.memory:
		lis = &memoryListener{Listener: bufconn.Listen(1 << 20), at: address}
	case network == "unix":
		return net.Listen(network, address)
	default:
		var err error
		if lis, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	w.listeners[address] = lis
	return lis, nil
}

// dialer returns the dial function of somebody.
func (w *wire) dialer(who string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		lis := w.listeners[address]
		w.dials[who+" "+address]++
		w.mu.Unlock()
		if network == "unix" && !w.memory {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		switch lis := lis.(type) {
		case nil:
			return nil, fmt.Errorf("dial %s: connection refused", address)
		case *memoryListener:
			return lis.DialContext(ctx)
		default:
			return new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String())
		}
	}
}

// dialled is how often somebody dialled an address.
func (w *wire) dialled(who, address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[who+" "+address]
}

// memoryListener is a bufconn with an address of its own.
type memoryListener struct {
	*bufconn.Listener
	at string
}

type memoryAddress string

func (memoryAddress) Network() string  { return "memory" }
func (a memoryAddress) String() string { return string(a) }

// Addr is the address listened on.
func (l *memoryListener) Addr() net.Addr { return memoryAddress(l.at) }
