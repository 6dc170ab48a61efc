// Command agents runs many real agents in one process, each with an identity, files
// and streams of its own: a fleet that is larger than the processes that a machine can
// start. With -floor it runs as many of the least that any agent has to do instead.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/trustcast/trustcast/agent"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "agents:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("agents", flag.ContinueOnError)
	server := flags.String("join", "", "`HOST:PORT` of the server")
	first := flags.Int("first", 0, "number of the first host")
	n := flags.Int("n", 1, "how many")
	dir := flags.String("dir", "", "`directory` of all hosts")
	gossip := flags.String("gossip", "127.0.0.1:0", "where each listens for gossip, or off")
	watch := flags.Bool("watch", true, "have the kernel tell of changed files; it gives a user 128 such queues")
	floor := flags.String("floor", "", "write what comes down a stream and nothing else, with the key pair in this `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	homes, g := make([]string, *n), new(errgroup.Group)
	for i := range homes {
		homes[i] = filepath.Join(*dir, "host-"+strconv.Itoa(*first+i))
	}
	if *floor != "" {
		for _, home := range homes {
			g.Go(func() error { return least(ctx, *server, *floor, filepath.Join(home, "certs.d", "floor", "ca.crt")) })
		}
		return g.Wait()
	}
	var all []agent.Config
	for _, home := range homes {
		cfg := agent.Config{
			DataDir: home, DockerCertsDir: filepath.Join(home, "certs.d"), Name: filepath.Base(home),
			Server: *server, Token: os.Getenv("TRUSTCAST_TOKEN"), GossipListen: *gossip,
		}
		if !*watch {
			cfg.WatchFile = func(ctx context.Context, _ string, _ func()) error { <-ctx.Done(); return nil }
		}
		all = append(all, cfg)
	}
	return together(ctx, all)
}

// joining bounds how many join at a time: a thousand at once would wait for each other
// longer than a connection may take.
const joining = 16

// together joins all and runs them until ctx ends.
func together(ctx context.Context, all []agent.Config) error {
	var joins, runs errgroup.Group
	joins.SetLimit(joining)
	for _, cfg := range all {
		joins.Go(func() error {
			_, err := agent.Join(ctx, cfg)
			return err
		})
	}
	if err := joins.Wait(); err != nil {
		return err
	}
	for _, cfg := range all {
		runs.Go(func() error { return agent.Run(ctx, cfg) })
	}
	return runs.Wait()
}

// least holds a stream over mutual TLS, and writes, syncs and renames what comes down.
func least(ctx context.Context, server, pair, path string) error {
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "localhost",
	})))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the stream's error is the one that counts
	stream, err := pb.NewAgentServiceClient(conn).Sync(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.SyncRequest{}); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var bundle []byte
		for _, der := range m.GetWanted().GetBundle() {
			bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		if err := place(path, bundle); err != nil {
			return err
		}
	}
}

func place(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".ca")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // closed below; here when something failed
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
