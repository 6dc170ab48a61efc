package agent

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// The kernel asks a silent server soon and often, and one lost packet ends nothing.
func TestSignsOfLife(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	conn, err := Config{}.withDefaults().Dial(t.Context(), "tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	seconds := func(option int) (n time.Duration) {
		err := raw.Control(func(fd uintptr) {
			got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option)
			if err != nil {
				t.Error(err)
			}
			n = time.Duration(got) * time.Second
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	idle, interval := seconds(syscall.TCP_KEEPIDLE), seconds(syscall.TCP_KEEPINTVL)
	if idle > 15*time.Second || interval > time.Second {
		t.Errorf("first asked after %v, then each %v: want 15s and 1s at most", idle, interval)
	}
	if lost := (answerLimit - idle) / interval; lost < 4 {
		t.Errorf("%d lost packets end a stream, want 4 at least", lost)
	}
}
