package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func (a *app) host() *cobra.Command {
	return a.group("host", "List, show and remove the hosts of the fleet", "  trustcast host ls --state pending\n  trustcast host rm web-3",
		a.hostList(), a.hostShow(), a.hostRemove())
}

func (a *app) now(ctx context.Context) (*pb.Status, error) {
	r, err := ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.GetStatusResponse, error) {
		return c.GetStatus(ctx, &pb.GetStatusRequest{})
	})
	return r.GetStatus(), err
}

func (a *app) hostShow() *cobra.Command {
	c := &cobra.Command{Use: "show NAME|ID", Short: "Show one host", Example: "  trustcast host show web-3", Args: names("the host's NAME or ID")}
	out := output(c.Flags(), hostJSON{})
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := a.now(c.Context())
		if err != nil {
			return err
		}
		for _, h := range s.GetHosts() {
			if h.GetName() == args[0] || h.GetId() == args[0] {
				if out.json() {
					return cli.JSON(a.stdout, newHostJSON(h))
				}
				return printHost(a.stdout, h, s)
			}
		}
		return cli.Errorf(cli.NotFound, "no host is called %q; '%s' lists them", args[0], a.hint("host ls"))
	}
	return c
}

// skewShown is from when on the difference of two clocks is worth showing:
// certificates are back-dated by a day at least.
const skewShown = time.Minute

// skew says how far a host's clock is off the server's; "" when it hardly is.
func skew(h *pb.Host) string {
	switch d := h.GetClockSkew().AsDuration(); {
	case d > skewShown:
		return "its clock is " + span(d) + " ahead of the server's"
	case d < -skewShown:
		return "its clock is " + span(-d) + " behind the server's"
	}
	return ""
}

func both(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

func printHost(w io.Writer, h *pb.Host, s *pb.Status) error {
	clock := skew(h)
	if clock == "" {
		clock = "as the server's"
	}
	rows := []string{
		row("name", h.GetName()), row("id", h.GetId()),
		row("state", h.GetState()+because(h.GetProblem())),
		row("generation", fmt.Sprintf("%d (%s), wanted is %d", h.GetGeneration(), cli.Short(h.GetFingerprint()), s.GetGeneration())),
		row("last seen", ago(h.GetLastSeen(), s.GetTime())+" from "+h.GetAddress()),
		row("covered", yes(h.GetCovered())), row("present", yes(h.GetPresent())), row("connected", yes(h.GetConnected())),
		row("gossip", h.GetGossip()), row("handshake", h.GetLive()), row("clock", clock),
		row("version", h.GetVersion()), row("enrolled", day(h.GetEnrolled())), row("identity until", day(h.GetIdentityNotAfter())),
		row("repairs", strconv.FormatUint(h.GetRepairs(), 10)+" since the agent's start"),
	}
	for _, p := range h.GetPlaces() {
		rows = append(rows, row(p.GetRuntime(), p.GetDir()+because(p.GetProblem())))
	}
	return table(w, rows...)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type removedHostJSON struct {
	// ID is what it was known by.
	ID string `json:"id"`
	// Name is free for another host.
	Name string `json:"name"`
}

func (a *app) hostRemove() *cobra.Command {
	c := &cobra.Command{
		Use:     "rm NAME|ID",
		Short:   "Remove a host from the fleet, at once",
		Long:    "Remove a host from the fleet: its identity is void and its streams close within a second. The host keeps the CA files that it has, and registry users are another matter ('trustcast user rm').",
		Example: "  trustcast host rm web-3",
		Args:    names("the host's NAME or ID"),
	}
	out := output(c.Flags(), removedHostJSON{})
	c.RunE = func(c *cobra.Command, args []string) error {
		r, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RemoveHostResponse, error) {
			return c.RemoveHost(ctx, &pb.RemoveHostRequest{Host: args[0]})
		})
		if err != nil {
			return err
		}
		if out.json() {
			return cli.JSON(a.stdout, removedHostJSON{r.GetId(), r.GetName()})
		}
		a.say("Host %s is removed. It keeps its CA files and any password that it knows: take that away with '%s'.", r.GetName(), a.hint("user rm NAME"))
		return nil
	}
	return c
}
