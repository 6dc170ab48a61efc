package server

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/certs"
)

// TestWhoListens: what a process calls itself makes it no service manager, and nothing
// that acts on a terminal.
func TestWhoListens(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	before, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Skip("only Linux tells")
	}
	call := func(name string) {
		if err := os.WriteFile("/proc/self/comm", []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { call(string(before)) })
	call("a\x1b[2J\nb")
	if found, manager := listenerOn(lis.Addr().String()); manager || !strings.HasPrefix(found, "a [2J b (pid ") {
		t.Errorf("%q, systemd: %v", found, manager)
	}
	call("systemd")
	found, manager := listenerOn(lis.Addr().String())
	if !strings.HasPrefix(found, "systemd (pid ") || manager != (os.Geteuid() != 0) {
		t.Errorf("%q, systemd: %v", found, manager)
	}
	if os.Geteuid() != 0 {
		return
	}
	var f findings
	taken := lis.Addr().String()
	examineFreePorts(Config{RegistryListen: taken, GRPCListen: off, HTTPListen: off, GossipListen: off}, certs.Name{Host: "registry.test", Port: 5000}, &f)
	if len(f.checks) != 1 || f.checks[0].State != checkFail {
		t.Errorf("%+v", f.checks)
	}
}
