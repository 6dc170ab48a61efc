package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/trustcast/trustcast/internal/durable"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

const (
	floorStreams = 100  // a connection
	floorMessage = 3000 // bytes: two CAs, two leaves and what goes with them
	floorFile    = 1600 // bytes: two CAs as PEM
)

// floor is how long it takes at least until as many files are durable: a message down
// open streams, and a file for each.
func (f *grown) floor(ctx context.Context) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(f.dir, "floor-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, err := serverPair(dir); err != nil {
		return 0, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return 0, err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	push := &pusher{begin: make(chan struct{})}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})))
	pb.RegisterAgentServiceServer(server, push)
	var g errgroup.Group
	g.Go(func() error { return server.Serve(lis) })
	defer func() { server.Stop(); err = errors.Join(err, g.Wait()) }()
	return push.measure(ctx, lis.Addr().String(), dir, f.size)
}

// pusher sends one message down each stream when it is told to.
type pusher struct {
	pb.UnimplementedAgentServiceServer
	open  sync.WaitGroup
	begin chan struct{} // closed when all are open
}

// Sync is a stream of a host.
func (p *pusher) Sync(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	p.open.Done()
	select {
	case <-p.begin:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	message := make([]byte, floorMessage)
	_, _ = rand.Read(message) // never fails
	return stream.Send(&pb.SyncResponse{Wanted: &pb.Wanted{Bundle: [][]byte{message}}})
}

// measure opens the streams, and takes the time from the first message to the last file.
func (p *pusher) measure(ctx context.Context, address, dir string, hosts int) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	content := make([]byte, floorFile)
	g, ctx := errgroup.WithContext(ctx)
	p.open.Add(hosts)
	var conn *grpc.ClientConn
	for i := range hosts {
		if i%floorStreams == 0 {
			conn, err = grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))) //nolint:gosec // nobody else is there
			if err != nil {
				return 0, err
			}
			opened := conn
			defer func() { _ = opened.Close() }() // all was read
		}
		host := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(host, 0o755); err != nil {
			return 0, err
		}
		stream, err := pb.NewAgentServiceClient(conn).Sync(ctx)
		if err != nil {
			return 0, err
		}
		if err := stream.Send(&pb.SyncRequest{}); err != nil {
			return 0, err
		}
		g.Go(func() error {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			return durable.WriteFile(filepath.Join(host, "ca.crt"), content, 0o644)
		})
	}
	opened := make(chan struct{})
	go func() { p.open.Wait(); close(opened) }()
	select {
	case <-opened:
	case <-ctx.Done(): // a stream failed, or the run ends
		return 0, context.Cause(ctx)
	}
	began := time.Now()
	close(p.begin)
	err = g.Wait()
	return time.Since(began), err
}
