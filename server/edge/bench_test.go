package edge

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// BenchmarkBlob prints the processor time of a large answer from a file, over TLS. The
// client takes what comes and looks at none of it: nearly all the time is the edge's.
func BenchmarkBlob(b *testing.B) {
	const size = 64 << 20
	name := filepath.Join(b.TempDir(), "blob")
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	must(b, os.WriteFile(name, content, 0o600))
	f := newFront(b, func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Open(name)
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = file.Close() }() // nothing was written
		http.ServeContent(w, r, "", time.Time{}, file)
	})
	b.SetBytes(size)
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		if got := f.drain(b, "GET /v2/a/blobs/b HTTP/1.1\r\nHost: "+domain+"\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\nConnection: close\r\n\r\n"); got < size {
			b.Fatalf("%d bytes came", got)
		}
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N)/(size>>20), "cpu-µs/MiB")
}

// BenchmarkConnection prints what a new connection with one small answer costs, both
// sides together.
func BenchmarkConnection(b *testing.B) {
	f := newFront(b, ok)
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		f.drain(b, "GET /v2/ HTTP/1.1\r\nHost: "+domain+"\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\nConnection: close\r\n\r\n")
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// drain asks over a connection of its own and counts what comes until its end,
// encrypted as it is.
func (f *front) drain(b *testing.B, request string) (n int64) {
	b.Helper()
	conn, err := f.handshake(b, &tls.Config{RootCAs: pool(f.ca), ServerName: domain, NextProtos: []string{http1Protocol}})
	must(b, err)
	defer func() { _ = conn.Close() }() // its other end did
	_, err = io.WriteString(conn, request)
	must(b, err)
	tcp, is := conn.NetConn().(*net.TCPConn)
	if !is {
		b.Fatalf("a %T", conn.NetConn())
	}
	raw, err := tcp.SyscallConn()
	must(b, err)
	buffer := make([]byte, 256<<10)
	for {
		var got int
		var failed error
		must(b, raw.Read(func(fd uintptr) bool {
			got, _, failed = syscall.Recvfrom(int(fd), buffer, syscall.MSG_TRUNC) // which copies nothing
			return !errors.Is(failed, syscall.EAGAIN)
		}))
		if errors.Is(failed, syscall.EINTR) {
			continue
		}
		must(b, failed)
		if got <= 0 {
			return n
		}
		n += int64(got)
	}
}

func processorTime(b testing.TB) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(fmt.Errorf("processor time: %w", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReplica prints what small answers cost that come through a socket: all
// three sides together, over eight connections.
func BenchmarkReplica(b *testing.B) {
	answer := noise(2 << 10)
	one := newReplica(b, "replica", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	f := newBalanced(b, []*replica{one})
	client := f.client(b)
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 8
	b.ReportAllocs()
	before := processorTime(b)
	b.SetParallelism(4)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			get(b, client, "/v2/a/manifests/b", "ann", "secret")
		}
	})
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}
