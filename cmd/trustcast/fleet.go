package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func (a *app) fleet() *cobra.Command {
	return a.group("fleet", "Act on all hosts together", "  trustcast fleet roll-gossip-key", a.fleetRoll())
}

type rolledJSON struct {
	// Version is that of the ring from now on.
	Version uint64 `json:"version"`
}

func (a *app) fleetRoll() *cobra.Command {
	c := &cobra.Command{
		Use:   "roll-gossip-key",
		Short: "Replace the key that members encrypt gossip with",
		Long: "Replace the key that members encrypt gossip with: hosts get the new key, then use it, then forget the old one. Each step waits until the connected hosts have confirmed it, at most for the server's --deadline; hosts that are away get the key when they come back.\n\n" +
			"This happens by itself after 'trustcast host rm', and when a host is replaced. While it is under way, another call has it done once more afterwards.",
		Example: "  trustcast fleet roll-gossip-key", Args: names(),
	}
	out := output(c.Flags(), rolledJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RollGossipKeyResponse, error) {
			return c.RollGossipKey(ctx, &pb.RollGossipKeyRequest{})
		})
		if err != nil {
			return err
		}
		if out.json() {
			return cli.JSON(a.stdout, rolledJSON{r.GetVersion()})
		}
		a.say("The gossip key is being replaced; '%s' shows the step and whom it waits for.", a.hint("status"))
		return nil
	}
	return c
}

// ringRows is the replacement of the gossip key, while it is under way.
func ringRows(s *pb.Status) []string {
	ring := s.GetGossipRing()
	if ring.GetStep() == "" || ring.GetStep() == phaseIdle {
		return nil
	}
	text := "being replaced, " + ring.GetStep() + ", version " + strconv.FormatUint(ring.GetVersion(), 10)
	rows := []string{row("gossip key", text)}
	if waits := ring.GetWaitingFor(); len(waits) > 0 {
		rows = append(rows, row("  waits for", strings.Join(waits, ", ")))
	}
	return rows
}
