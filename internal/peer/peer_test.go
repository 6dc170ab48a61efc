package peer

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestDial: whoever should listen is reached; anybody else is sent nothing.
func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	self := os.Geteuid()
	conn, err := Dial(t.Context(), path, self+1, self)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(conn.Close(), received(t, lis, 1)); err != nil {
		t.Error(err)
	}

	conn, err = Dial(t.Context(), path, self+1)
	if conn != nil {
		_ = conn.Close() // else its end is never received
	}
	if other, ok := errors.AsType[*OtherError](err); !ok || other.UID != self || other.Path != path {
		t.Errorf("somebody else: %v", err)
	}
	if err := received(t, lis, 0); err != nil {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), path+"none", self); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody: %v", err)
	}
}

// received accepts a connection that waits, which has n bytes in it and its end.
func received(t *testing.T, lis net.Listener, n int) error {
	t.Helper()
	conn, err := lis.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	got, err := io.ReadAll(conn)
	if len(got) != n {
		t.Errorf("%d bytes were sent, want %d", len(got), n)
	}
	return err
}
