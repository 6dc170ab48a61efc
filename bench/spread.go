package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	// spreadHosts is how many hosts each peer brings the file to.
	spreadHosts = 20
	// spreadLimit ends a spreading that does not arrive.
	spreadLimit = 2 * time.Minute

	caFile = "ca.crt"
)

// caBundle is what hosts should have in the middle of a rotation: two
// certificates in one file.
type caBundle struct{ old, new []byte }

func (b caBundle) pem() []byte { return append(bytes.Clone(b.old), b.new...) }

// spreader is another way to bring a file to hosts, each of which is a directory
// and a process on this machine.
type spreader struct {
	dirs []string // one a host
	// spread brings the bundle to all of them. It may return before it is there.
	spread func(context.Context, caBundle) error
	// settle, if any, ends what one spreading has left behind.
	settle func(context.Context) error
	// unequal says how it differs from ours.
	unequal string
}

// newCA makes a registry CA as ours has it and returns its certificate.
func (l *lab) newCA(ctx context.Context) ([]byte, error) {
	program, err := l.program(ctx, "trustcast")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "ca-")
	if err != nil {
		return nil, err
	}
	if _, err := output(ctx, nil, program, "init", "--domain", "registry.example.com:5000", "--data-dir", dir); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "certs", caFile))
}

// hostDirs makes the directories of a peer's hosts, where the old certificate is
// in place.
func (l *lab) hostDirs(peer string, old []byte) ([]string, error) {
	dirs := make([]string, spreadHosts)
	for i := range dirs {
		dirs[i] = l.path(peer, fmt.Sprintf("host-%d", i))
		if err := os.MkdirAll(dirs[i], 0o755); err != nil {
			return nil, err
		}
		for _, name := range []string{"old.crt", caFile} {
			if err := os.WriteFile(filepath.Join(dirs[i], name), old, 0o644); err != nil {
				return nil, err
			}
		}
	}
	return dirs, nil
}

// once spreads a bundle and returns how long it took until the last host had it.
func (s *spreader) once(ctx context.Context, b caBundle) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, spreadLimit)
	defer cancel()
	files := make([]string, len(s.dirs))
	for i, dir := range s.dirs {
		files[i] = filepath.Join(dir, caFile)
	}
	w, err := watchLandings(files...)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = s.spread(ctx, b)
	if s.settle != nil {
		err = errors.Join(err, s.settle(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return 0, errors.Join(err, w.close())
	}
	last, err := w.last(ctx, 1, files...)
	if err = errors.Join(err, w.close()); err != nil {
		return 0, err
	}
	for _, f := range files {
		found, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(found, b.pem()) {
			return 0, fmt.Errorf("%s is not what was spread:\n%s", f, found)
		}
	}
	return last.Sub(began), nil
}

// freeAddresses are loopback addresses, all different, that were free a moment ago
// for TCP and UDP.
func freeAddresses(n int) (addresses []string, err error) {
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			err = errors.Join(err, h.Close())
		}
	}()
	for len(addresses) < n {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, lis)
		packets, err := net.ListenPacket("udp", lis.Addr().String())
		if err != nil {
			continue // taken by another, for UDP alone
		}
		held = append(held, packets)
		addresses = append(addresses, lis.Addr().String())
	}
	return addresses, nil
}
