package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	"github.com/trustcast/trustcast/internal/printable"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func (a *app) registry() *cobra.Command {
	verb := a.registryVerb
	return a.group("registry", "Start, stop, pause, upgrade and tidy the registry", "  trustcast registry status\n  trustcast registry restart",
		a.registryStatus(),
		verb("start", "Start a stopped registry", "The data, the users and the CA are where they were."),
		verb("stop", "Let requests in flight end, then stop the registry",
			"New requests are refused at once, those in flight end first: one slow pull keeps the command waiting, for an hour or so at most, also when no replica runs any more. Agents still prove the certificate, so a rotation goes on. A stopped registry stays stopped when the server restarts, until 'trustcast registry start'."),
		verb("pause", "Let new requests wait; nothing in flight is cut",
			"New requests wait, and after a while get 503 with Retry-After. A paused registry stays paused when the server restarts, until 'trustcast registry unpause'."),
		verb("unpause", "Let the requests that wait go on", ""),
		verb("restart", "Replace the replicas one by one, without a failed request", "Each old replica goes when a new one serves and its own last request has ended."),
		a.registryUpgrade(), a.registryCollect(), a.registryLogs())
}

// registryVerb is a command that has the registry do what it is called.
func (a *app) registryVerb(name, short, long string) *cobra.Command {
	if long != "" {
		long = short + ".\n\n" + long
	}
	return &cobra.Command{
		Use: name, Short: short, Long: long, Example: "  trustcast registry " + name, Args: names(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.changeRegistry(c.Context(), &pb.ChangeRegistryRequest{Verb: name})
		},
	}
}

func (a *app) registryUpgrade() *cobra.Command {
	c := &cobra.Command{
		Use: "upgrade --image IMAGE", Short: "Go to another image of the registry, replica by replica",
		Long:    "Go to another image of the registry: replicas are replaced one at a time, each when the new one answers. When a new one does not get healthy, the registry goes back to the old image by itself. The data stays.\n\nThe image counts until --registry-image of 'trustcast server' is changed.",
		Example: "  docker pull registry:3 && trustcast registry upgrade --image registry:3", Args: names(),
	}
	image := c.Flags().String("image", "", "the `IMAGE` to go to; it is pulled if the engine does not have it")
	config.FromCommandLine(c.Flags(), "image")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *image == "" {
			return cli.Errorf(cli.Usage, "--image is missing: name the image to go to, like --image registry:3")
		}
		return a.changeRegistry(c.Context(), &pb.ChangeRegistryRequest{Verb: "upgrade", Image: *image})
	}
	return c
}

// changeRegistry says each step of a change, which goes on if this ends.
func (a *app) changeRegistry(ctx context.Context, req *pb.ChangeRegistryRequest) error {
	return stream(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (grpc.ServerStreamingClient[pb.ChangeRegistryResponse], error) {
		return c.ChangeRegistry(ctx, req)
	}, func(r *pb.ChangeRegistryResponse) error {
		a.say("%s", sentence(r.GetStep()))
		return nil
	})
}

type replicaJSON struct {
	// ID is its name.
	ID string `json:"id"`
	// State is serving, starting, draining or failing.
	State string `json:"state"`
	// Image is empty for embedded.
	Image string `json:"image"`
	// Started is when it began.
	Started *time.Time `json:"started"`
	// InFlight counts requests that it answers now.
	InFlight int32 `json:"in_flight"`
	// Problem is why it fails, in words, else empty.
	Problem string `json:"problem"`
}

type registryJSON struct {
	// Engine is embedded or docker.
	Engine string `json:"engine"`
	// State is running, paused or stopped, as it was chosen.
	State string `json:"state"`
	// Busy is what is under way, in words, else empty.
	Busy string `json:"busy"`
	// Problem is what is wrong, in words, else empty.
	Problem string `json:"problem"`
	// Image is that of new replicas; empty for embedded.
	Image string `json:"image"`
	// Wanted is how many replicas there shall be.
	Wanted int32 `json:"wanted"`
	// Held counts requests that wait.
	Held int32 `json:"held"`
	// Replicas are those that answer.
	Replicas []replicaJSON `json:"replicas"`
}

func (a *app) registryStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show what the registry does, and each replica",
		Long:    "Show what the registry does, and each replica.\n\nExit code 3 means that it should run and does not, or not with all its replicas.",
		Example: "  trustcast registry status", Args: names(),
	}
	out := output(c.Flags(), registryJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.GetRegistryResponse, error) {
			return c.GetRegistry(ctx, &pb.GetRegistryRequest{})
		})
		if err != nil {
			return err
		}
		if out.json() {
			err = cli.JSON(a.stdout, newRegistryJSON(r))
		} else {
			err = a.printRegistry(r)
		}
		if err == nil && r.GetProblem() != "" {
			return cli.Errorf(cli.Bad, "the registry is not as it should be: %s", r.GetProblem())
		}
		return err
	}
	return c
}

func newRegistryJSON(r *pb.GetRegistryResponse) registryJSON {
	replicas := []replicaJSON{}
	for _, p := range r.GetReplicas() {
		replicas = append(replicas, replicaJSON{p.GetId(), p.GetState(), p.GetImage(), instant(p.GetStarted()), p.GetInFlight(), p.GetProblem()})
	}
	return registryJSON{r.GetEngine(), r.GetState(), r.GetBusy(), r.GetProblem(), r.GetImage(), r.GetWanted(), r.GetHeld(), replicas}
}

func (a *app) printRegistry(r *pb.GetRegistryResponse) error {
	rows := []string{row("engine", r.GetEngine()), row("state", r.GetState())}
	for _, line := range [][2]string{{"image", r.GetImage()}, {"busy", r.GetBusy()}, {"problem", r.GetProblem()}} {
		if line[1] != "" {
			rows = append(rows, row(line[0], line[1]))
		}
	}
	if r.GetHeld() > 0 {
		rows = append(rows, row("waiting", count(int(r.GetHeld()), "request")))
	}
	if err := table(a.stdout, rows...); err != nil {
		return err
	}
	if len(r.GetReplicas()) == 0 {
		return nil
	}
	rows = []string{"", row("REPLICA", "STATE", "IN FLIGHT", "SINCE", "IMAGE", "PROBLEM")}
	for _, p := range r.GetReplicas() {
		rows = append(rows, row(p.GetId(), p.GetState(), strconv.Itoa(int(p.GetInFlight())), day(p.GetStarted()), p.GetImage(), p.GetProblem()))
	}
	return table(a.stdout, rows...)
}

type collectedJSON struct {
	// Blobs counts what was, or would be, freed.
	Blobs uint64 `json:"blobs"`
	// Manifests counts untagged ones, with --untagged.
	Manifests uint64 `json:"manifests"`
	// Bytes is how much space that is.
	Bytes uint64 `json:"bytes"`
	// Uploads counts those that nobody went on with.
	Uploads uint64 `json:"uploads"`
	// Spared counts blobs that nothing needs and that are younger than --min-age.
	Spared uint64 `json:"spared"`
	// DryRun says that nothing was freed.
	DryRun bool `json:"dry_run"`
}

func (a *app) registryCollect() *cobra.Command {
	c := &cobra.Command{
		Use: "gc", Short: "Free what no image needs any more",
		Long:    "Free blobs that no image needs any more, and uploads that nobody goes on with. Pushes wait meanwhile, pulls go on. What is younger than --min-age stays: a push brings its layers before the manifest that needs them.\n\nAn image is deleted with a client, like 'skopeo delete'; this frees its space.",
		Example: "  trustcast registry gc --dry-run\n  trustcast registry gc --untagged", Args: names(),
	}
	dry := c.Flags().Bool("dry-run", false, "say what would be freed, and free nothing")
	untagged := c.Flags().Bool("untagged", false, "remove manifests that no tag leads to, too")
	youngest := age(time.Hour)
	c.Flags().Var(&youngest, "min-age", "what is younger stays; 0 spares nothing")
	out := output(c.Flags(), collectedJSON{})
	config.FromCommandLine(c.Flags(), "dry-run", "untagged", "min-age")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var last *pb.CollectGarbageResponse
		err := stream(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (grpc.ServerStreamingClient[pb.CollectGarbageResponse], error) {
			return c.CollectGarbage(ctx, &pb.CollectGarbageRequest{DryRun: *dry, Untagged: *untagged, MinAge: durationpb.New(time.Duration(youngest))})
		}, func(r *pb.CollectGarbageResponse) error {
			if r.GetStep() != "" {
				a.say("%s", sentence(r.GetStep()))
			}
			last = r
			return nil
		})
		if err != nil {
			return err
		}
		return a.printCollected(collectedJSON{last.GetBlobs(), last.GetManifests(), last.GetBytes(), last.GetUploads(), last.GetSpared(), *dry}, &youngest, out.json())
	}
	return c
}

func (a *app) printCollected(r collectedJSON, youngest *age, asJSON bool) error {
	if asJSON {
		return cli.JSON(a.stdout, r)
	}
	verb := "freed"
	if r.DryRun {
		verb = "would free"
	}
	text := fmt.Sprintf("%s %s: %s", verb, size(int64(min(r.Bytes, math.MaxInt64))), count(int(min(r.Blobs, math.MaxInt32)), "blob"))
	if r.Manifests > 0 {
		text += ", " + count(int(min(r.Manifests, math.MaxInt32)), "untagged manifest")
	}
	if r.Uploads > 0 {
		text += ", " + count(int(min(r.Uploads, math.MaxInt32)), "abandoned upload")
	}
	if r.Spared > 0 {
		text += fmt.Sprintf("; %s younger than %s stay", count(int(min(r.Spared, math.MaxInt32)), "blob"), youngest)
	}
	_, err := fmt.Fprintln(a.stdout, text)
	return err
}

func (a *app) registryLogs() *cobra.Command {
	c := &cobra.Command{
		Use: "logs", Short: "Show what the registry's replicas said",
		Long:    "Show what the registry's replicas said, each line after the replica's name. The embedded engine keeps its latest warnings and errors; the server's own log has them, too.",
		Example: "  trustcast registry logs --tail 50\n  trustcast registry logs -f", Args: names(),
	}
	tail := number{least: 0, most: math.MaxInt32}
	c.Flags().Var(&tail, "tail", "only the last `N` lines of each replica; 0 shows all that are kept")
	follow := c.Flags().BoolP("follow", "f", false, "go on with what is said from now on")
	out := output(c.Flags(), logLineJSON{})
	config.FromCommandLine(c.Flags(), "tail", "follow")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return stream(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (grpc.ServerStreamingClient[pb.RegistryLogsResponse], error) {
			return c.RegistryLogs(ctx, &pb.RegistryLogsRequest{Tail: int32(tail.value), Follow: *follow})
		}, func(r *pb.RegistryLogsResponse) error { return a.printLog(r, out.json()) })
	}
	return c
}

// logLineJSON is one line of `registry logs -o json`.
type logLineJSON struct {
	// Replica is who said it.
	Replica string `json:"replica"`
	// Text is the line without its end.
	Text string `json:"text"`
}

// printLog puts the replica's name before each line.
func (a *app) printLog(r *pb.RegistryLogsResponse, asJSON bool) error {
	values := json.NewEncoder(a.stdout) // one a line
	for line := range bytes.Lines(r.GetText()) {
		line = bytes.TrimRight(line, "\r\n")
		var err error
		if asJSON {
			err = values.Encode(logLineJSON{r.GetReplica(), string(bytes.ToValidUTF8(line, []byte("\uFFFD")))})
		} else {
			_, err = fmt.Fprintf(a.stdout, "%s  %s\n", r.GetReplica(), bytes.Map(printable.Rune, line))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
