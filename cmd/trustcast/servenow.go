package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func (a *app) caServeNow() *cobra.Command {
	c := &cobra.Command{
		Use: "serve-now", Short: "After a restore: serve without waiting for hosts that lack the restored CA",
		Long:    "After 'trustcast restore' the registry serves nobody until every present host has the restored CA, so that no pull fails. This opens it at once: hosts that are waited for fail until they have it, and are named. On a terminal it asks first, unless --yes is given.",
		Example: "  trustcast ca serve-now", Args: names(),
	}
	yes := c.Flags().Bool("yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := a.confirmServing(c.Context(), *yes); err != nil {
			return err
		}
		r, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.ServeNowResponse, error) {
			return c.ServeNow(ctx, &pb.ServeNowRequest{})
		})
		if err != nil {
			return err
		}
		if len(r.GetWillFail()) == 0 {
			a.say("The registry serves.")
			return nil
		}
		a.say("The registry serves; until they have the restored CA, these hosts fail: %s.", strings.Join(r.GetWillFail(), ", "))
		return nil
	}
	return c
}

// confirmServing asks a person at a terminal, and names who would fail.
func (a *app) confirmServing(ctx context.Context, yes bool) error {
	s, err := a.now(ctx)
	if err != nil {
		return err
	}
	waits := stillWaiting(s)
	if yes || waits == "" || !a.interactive() {
		return nil
	}
	_, _ = io.WriteString(a.stderr, "Serve now? "+waits+", which will fail until it has the restored CA [y/N] ") // the answer decides, not the question
	return a.agreed()
}

// interactive: a person reads and types.
func (a *app) interactive() bool {
	_, reads := terminal(a.stdin)
	_, writes := terminal(a.stderr)
	return reads && writes
}

// agreed reads the answer to a question.
func (a *app) agreed() error {
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return cli.Errorf(cli.Failed, "read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return cli.Errorf(cli.Failed, "nothing was changed: the answer was not yes")
}
