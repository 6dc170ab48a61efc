package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/registry"
)

// GetRegistry returns what the registry does and what answers for it.
func (a *adminAPI) GetRegistry(context.Context, *pb.GetRegistryRequest) (*pb.GetRegistryResponse, error) {
	return a.node.registryStatus(), nil
}

// registryStatus puts together what the registry wants and what the edge sees.
func (n *node) registryStatus() *pb.GetRegistryResponse {
	v := n.registry.View()
	out := &pb.GetRegistryResponse{
		Engine: v.Engine, State: string(v.State), Busy: v.Busy, Problem: v.Problem,
		Image: v.Image, Wanted: clampInt32(v.Wanted),
	}
	out.Held = clampInt32(n.edge.Held())
	known := map[string]registry.Endpoint{}
	for _, e := range v.Replicas {
		known[e.ID] = e
	}
	for _, e := range n.edge.Load() {
		replica := &pb.Replica{Id: e.ID, State: "serving", InFlight: clampInt32(e.InFlight), Image: known[e.ID].Image, Started: timeOrNil(known[e.ID].Started)}
		switch {
		case e.Draining:
			replica.State = "draining"
		case e.Problem != "":
			replica.State, replica.Problem = "failing", e.Problem
		}
		out.Replicas = append(out.Replicas, replica)
	}
	return out
}

// ChangeRegistry does what the verb says, and sends each step.
func (a *adminAPI) ChangeRegistry(req *pb.ChangeRegistryRequest, stream grpc.ServerStreamingServer[pb.ChangeRegistryResponse]) error {
	ctx, r := stream.Context(), a.node.registry
	say := func(step string) {
		_ = stream.Send(&pb.ChangeRegistryResponse{Step: step}) // the caller may be gone; the change goes on
	}
	var err error
	switch req.GetVerb() {
	case "start":
		err = r.Start(ctx, say)
	case "stop":
		err = r.Stop(ctx, say)
	case "pause":
		err = r.Pause(say)
	case "unpause":
		err = r.Unpause(say)
	case "restart":
		err = r.Restart(ctx, say)
	case "upgrade":
		err = r.Upgrade(ctx, req.GetImage(), say)
	default:
		err = fmt.Errorf("%w: the registry knows no verb %q", registry.ErrInvalid, req.GetVerb())
	}
	return reply(err)
}

// CollectGarbage removes blobs that no image needs.
func (a *adminAPI) CollectGarbage(req *pb.CollectGarbageRequest, stream grpc.ServerStreamingServer[pb.CollectGarbageResponse]) error {
	opts := registry.CollectOptions{DryRun: req.GetDryRun(), Untagged: req.GetUntagged()}
	if req.GetMinAge() != nil {
		opts.Youngest = max(req.GetMinAge().AsDuration(), time.Nanosecond)
	}
	got, err := a.node.registry.Collect(stream.Context(), opts, func(step string) {
		_ = stream.Send(&pb.CollectGarbageResponse{Step: step}) // as above
	})
	if err != nil {
		return reply(err)
	}
	return stream.Send(&pb.CollectGarbageResponse{
		Blobs: atLeast0(got.Blobs), Manifests: atLeast0(got.Manifests), Spared: atLeast0(got.Spared), Bytes: atLeast0(got.Bytes), Uploads: atLeast0(got.Uploads),
	})
}

func atLeast0[T int | int64](n T) uint64 { return uint64(max(n, 0)) }

// RegistryLogs sends what the replicas said.
func (a *adminAPI) RegistryLogs(req *pb.RegistryLogsRequest, stream grpc.ServerStreamingServer[pb.RegistryLogsResponse]) error {
	return reply(a.node.registry.Logs(stream.Context(), int(req.GetTail()), req.GetFollow(), func(id string, text []byte) error {
		return stream.Send(&pb.RegistryLogsResponse{Replica: id, Text: text})
	}))
}

// registryWarnings says why pulls fail or wait, if they do.
func (n *node) registryWarnings() []string {
	switch v := n.registry.View(); {
	case v.State == registry.Stopped:
		return []string{"the registry is stopped: `trustcast registry start` starts it"}
	case v.State == registry.Paused:
		return []string{"the registry is paused and requests wait: `trustcast registry unpause` lets them go on"}
	case v.Problem != "":
		return []string{"the registry is not as it should be: " + v.Problem}
	}
	return nil
}
