package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// floor is the least that brings a file to hosts: a message down a stream that is open
// already, over mutual TLS, and one write, sync and rename there. The hosts are in as
// many processes as ours are, on the same disk.
type floor struct {
	server *floorServer
	grpc   *grpc.Server
	files  []string
	watch  *landings
}

// floorServer holds the streams.
type floorServer struct {
	pb.UnimplementedAgentServiceServer
	message *pb.SyncResponse

	mu      sync.Mutex
	streams []grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse]
}

// Sync keeps a stream until its host ends it.
func (s *floorServer) Sync(stream grpc.BidiStreamingServer[pb.SyncRequest, pb.SyncResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	s.mu.Lock()
	s.streams = append(s.streams, stream)
	s.mu.Unlock()
	<-stream.Context().Done()
	return nil
}

func (s *floorServer) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// floorOf starts n hosts, each process with some of them.
func (l *lab) floorOf(ctx context.Context, n, each int) (f *floor, err error) {
	dir, err := os.MkdirTemp(l.dir, "floor-")
	if err != nil {
		return nil, err
	}
	f = &floor{server: &floorServer{}}
	for i := range n {
		file := filepath.Join(hostDir(dir, i), "certs.d", "floor", "ca.crt")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		f.files = append(f.files, file)
	}
	pair, cert, err := floorPair(dir)
	if err != nil {
		return nil, err
	}
	f.server.message = &pb.SyncResponse{Wanted: &pb.Wanted{Bundle: [][]byte{cert.Certificate[0], cert.Certificate[0]}}}
	clients := x509.NewCertPool()
	clients.AddCert(cert.Leaf)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	})))
	pb.RegisterAgentServiceServer(f.grpc, f.server)
	go func() { _ = f.grpc.Serve(lis) }() // ends with close
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	var last *process
	for first := 0; first < n; first += each {
		if last, err = l.agents(ctx, first, min(each, n-first), dir, nil, "-join", lis.Addr().String(), "-floor", pair); err != nil {
			return nil, err
		}
	}
	if err := last.until(ctx, "connected", func() bool { return f.server.open() == n }); err != nil {
		return nil, err
	}
	f.watch, err = watchLandings(f.files...)
	return f, err
}

// floorPair writes a pair of key and certificate into one file; both sides show it and
// trust it.
func floorPair(dir string) (path string, cert tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", cert, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", cert, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", cert, err
	}
	crt, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	path = filepath.Join(dir, "pair.pem")
	if err := os.WriteFile(path, append(crt, keyPEM...), 0o600); err != nil {
		return "", cert, err
	}
	cert, err = tls.LoadX509KeyPair(path, path)
	return path, cert, err
}

// spread sends the message down all streams and returns when the last host has it in
// its place.
func (f *floor) spread(ctx context.Context) (time.Duration, error) {
	f.watch.forget()
	began := time.Now()
	errs := make([]error, len(f.server.streams))
	var sending sync.WaitGroup
	for i, s := range f.server.streams {
		sending.Go(func() { errs[i] = s.Send(f.server.message) })
	}
	sending.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("floor: %w", err)
	}
	last, err := f.watch.last(ctx, 1, f.files...)
	return last.Sub(began), err
}

func (f *floor) close() {
	f.grpc.Stop()
	if f.watch != nil {
		_ = f.watch.close() // nothing is read any more
	}
}

// agents starts one process of the program of many agents.
func (l *lab) agents(ctx context.Context, first, n int, dir string, env []string, args ...string) (*process, error) {
	program, err := l.program(ctx, "agents")
	if err != nil {
		return nil, err
	}
	return l.start("agents", program, env, append([]string{"-dir", dir, "-first", fmt.Sprint(first), "-n", fmt.Sprint(n)}, args...)...)
}

// agentsTogether joins hosts with each process holding some of them. Their agents are
// the real ones.
func agentsTogether(each int, args ...string) joiner {
	return func(ctx context.Context, l *lab, server *contender, dir string, n int) ([]*process, error) {
		address, token, err := l.invite(ctx, server)
		if err != nil {
			return nil, err
		}
		var all []*process
		for first := 0; first < n; first += each {
			p, err := l.agents(ctx, first, min(each, n-first), dir, []string{"TRUSTCAST_TOKEN=" + token}, append([]string{"-join", address}, args...)...)
			if err != nil {
				return nil, err
			}
			all = append(all, p)
		}
		return all, nil
	}
}
