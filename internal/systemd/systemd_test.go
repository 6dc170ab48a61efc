package systemd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is a socket that hears what a service tells.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func heard(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNotify(t *testing.T) {
	conn := manager(t)
	for _, test := range []struct {
		tell func()
		want string
	}{
		{func() { Ready("all is well") }, "READY=1\nSTATUS=all is well"},
		{func() { Ready("") }, "READY=1"},
		{func() { Status("generation 3") }, "STATUS=generation 3"},
		{Alive, "WATCHDOG=1"},
		{Stopping, "STOPPING=1"},
	} {
		test.tell()
		if got := heard(t, conn); got != test.want {
			t.Errorf("heard %q, want %q", got, test.want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	Ready("") // nobody is there, and nothing happens
}

func TestWatchdog(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{{"", "", 0}, {"20000000", own, 20 * time.Second}, {"20000000", "", 20 * time.Second}, {"20000000", "1", 0}, {"soon", own, 0}} {
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := Watchdog(); got != test.want {
			t.Errorf("%q of %q: %s, want %s", test.usec, test.pid, got, test.want)
		}
	}
}

// TestSockets has systemd's own tool pass sockets to this program.
func TestSockets(t *testing.T) {
	const variable = "TRUSTCAST_TEST_SOCKETS"
	if os.Getenv(variable) != "" { // the child
		got, err := Sockets("registry", "grpc")
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv("LISTEN_FDS") != "" {
			t.Error("children would see LISTEN_FDS")
		}
		for _, name := range []string{"registry", "grpc"} {
			t.Logf("has %s=%v", name, got[name] != nil)
		}
		return
	}
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("needs systemd-socket-activate (Debian's systemd)")
	}
	for _, test := range []struct {
		names, want string
		good        bool
	}{
		{"registry:grpc", "has registry=true", true},
		{"registry:registry", "two sockets called", false},
		{"registry:console", `"console"`, false},
	} {
		first, second := freePorts(t)
		cmd := exec.CommandContext(t.Context(), tool, "-l", first, "-l", second, "--fdname="+test.names, "--setenv="+variable+"=1",
			os.Args[0], "-test.run=^TestSockets$", "-test.v")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); touch(first) }() // the tool starts it at the first connection
		err := cmd.Wait()
		if (err == nil) != test.good || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s: %v\n%s", test.names, err, out.String())
		}
		<-done
	}
}

// touch connects as soon as somebody listens.
func touch(address string) {
	for range 3000 { // a minute
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freePorts are two: the first is held until the second is drawn.
func freePorts(t *testing.T) (first, second string) {
	t.Helper()
	var addresses [2]string
	for i := range addresses {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lis.Close() }()
		addresses[i] = lis.Addr().String()
	}
	return addresses[0], addresses[1]
}
