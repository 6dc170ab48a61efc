package contract

import (
	"net"
	"os"
	"testing"
)

// heldPort is a TCP port that stays this test's from its beginning to its end. A
// server listens on a copy of it; between two lives of a server, clients that
// connect wait for the next.
type heldPort struct {
	lis *net.TCPListener
}

func holdPort(t *testing.T) *heldPort {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { must(t, lis.Close()) })
	return &heldPort{lis.(*net.TCPListener)}
}

func (p *heldPort) address() string { return p.lis.Addr().String() }

func (p *heldPort) number() string {
	_, number, _ := net.SplitHostPort(p.address()) // it has one
	return number
}

// listen is a server.Config.Listen.
func (p *heldPort) listen(network, address string) (net.Listener, error) {
	if address != p.address() {
		return net.Listen(network, address)
	}
	f, err := p.lis.File()
	if err != nil {
		return nil, err
	}
	return listenOn(f)
}

// listenOn listens on a copy of what f is open on, and closes f.
func listenOn(f *os.File) (net.Listener, error) {
	defer func() { _ = f.Close() }() // a descriptor that nobody wrote to
	return net.FileListener(f)
}

// Between two lives of a server nobody else gets its port.
func TestHeldPort(t *testing.T) {
	p := holdPort(t)
	for range 2 {
		lis, err := p.listen("tcp", p.address())
		must(t, err)
		must(t, lis.Close())
		if other, err := net.Listen("tcp", p.address()); err == nil {
			t.Errorf("somebody else listens on %s", p.address())
			must(t, other.Close())
		}
	}
}
