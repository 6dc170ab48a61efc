package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// operator asks a server what `trustcast` would, without a process for each question.
type operator struct {
	pb.AdminServiceClient
	conn *grpc.ClientConn
}

func operate(data string) (*operator, error) {
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(data, "state", "admin.sock"))
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return nil, err
	}
	return &operator{pb.NewAdminServiceClient(conn), conn}, nil
}

func (o *operator) close() { _ = o.conn.Close() } // every answer has been read

// tail reads what a process logs, each part once: the log of thousands of hosts is long.
type tail struct {
	process *process
	read    int64
	said    strings.Builder
}

// more reads on and returns all that was read.
func (t *tail) more() string {
	f, err := os.Open(t.process.log)
	if err != nil {
		return t.said.String()
	}
	defer func() { _ = f.Close() }() // read-only
	if _, err := f.Seek(t.read, io.SeekStart); err == nil {
		n, _ := io.Copy(&t.said, f) // what fails is tried again
		t.read += n
	}
	return t.said.String()
}

// fromNow skips what was logged already.
func (p *process) fromNow() *tail {
	t := &tail{process: p}
	if info, err := os.Stat(p.log); err == nil {
		t.read = info.Size()
	}
	return t
}

// patiently is until for what takes thousands of hosts.
func (p *process) patiently(ctx context.Context, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for !ready() {
		said := func() string { all := p.said(); return all[max(0, len(all)-4000):] }
		if p.hasEnded() {
			return fmt.Errorf("%s ended, and was not %s:\n%s", p.name, what, said())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not %s: %w\n%s", p.name, what, ctx.Err(), said())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// hasEnded says whether it ended by itself.
func (p *process) hasEnded() bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	return err != nil || strings.Contains(string(raw), ") Z ")
}
