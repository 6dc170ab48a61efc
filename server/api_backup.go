package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/registry"
)

// backupChunk is the size of a part of a backup (bytes): large enough that gRPC
// costs little beside hashing, small enough to lie within every limit.
const backupChunk = 256 << 10

// Backup sends a backup while the registry serves. DataLoss, which names damaged
// images, comes after a whole backup; every other error means that what was sent is
// worth nothing.
func (a *adminAPI) Backup(req *pb.BackupRequest, stream grpc.ServerStreamingServer[pb.BackupResponse]) error {
	n, ctx := a.node, stream.Context()
	log := n.log.With("verb", "backup", "without_images", req.GetWithoutImages(), "uid", callerUID(ctx))
	switch err := n.sendBackup(ctx, req.GetWithoutImages(), stream); {
	case errors.Is(err, ErrDamaged):
		log.Error("backup made, but data in the registry is damaged", "err", err)
		return status.Error(codes.DataLoss, err.Error())
	case err != nil:
		log.Warn("backup failed", "err", err)
		return reply(err)
	}
	log.Info("backup made")
	return nil
}

func (n *node) sendBackup(ctx context.Context, withoutImages bool, stream grpc.ServerStreamingServer[pb.BackupResponse]) error {
	if !withoutImages && n.storage != "" {
		return fmt.Errorf("%w: the images are in %s and not in the data directory, so that a backup here would lack them: add --without-images, and back up %s by its own means", registry.ErrInvalid, n.storage, n.storage)
	}
	if !withoutImages {
		release, err := n.registry.KeepImages(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	out := &backupStream{stream: stream, stopping: n.stopping}
	cfg := BackupConfig{
		WithoutImages: withoutImages, Version: n.cfg.Version,
		Progress: func(written, total int64) { out.written, out.total = uint64(written), uint64(total) }, //nolint:gosec // not negative
	}
	return backUp(ctx, n.layout, n.store, cfg, out)
}

// backupStream sends what is written.
type backupStream struct {
	stream         grpc.ServerStreamingServer[pb.BackupResponse]
	stopping       <-chan struct{}
	written, total uint64
}

// Write sends one part; it is the caller's again when it returns.
func (s *backupStream) Write(p []byte) (int, error) {
	select {
	case <-s.stopping:
		return 0, errors.New("the server is stopping: make the backup again when it runs, or without it")
	default:
	}
	if err := s.stream.Send(&pb.BackupResponse{Chunk: p, Written: s.written, Total: s.total}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ServeNow opens a restored server's edge without waiting for its hosts.
func (a *adminAPI) ServeNow(ctx context.Context, _ *pb.ServeNowRequest) (*pb.ServeNowResponse, error) {
	state, err := a.node.authority.State()
	if err != nil {
		return nil, reply(err)
	}
	if err := a.node.authority.ServeNow(callerName(ctx)); err != nil {
		return nil, reply(err)
	}
	resp := &pb.ServeNowResponse{}
	for _, w := range state.Waiting {
		resp.WillFail = append(resp.WillFail, w.Host)
	}
	return resp, nil
}
