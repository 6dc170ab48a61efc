package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// healthJSON is `health -o json`; parts is never null.
type healthJSON struct {
	// Healthy says that no part has a problem.
	Healthy bool `json:"healthy"`
	// Parts are what was looked at.
	Parts []partJSON `json:"parts"`
}

type partJSON struct {
	// Name is stable.
	Name string `json:"name"`
	// OK says that it is well.
	OK bool `json:"ok"`
	// Problem is what is wrong, in words, else empty.
	Problem string `json:"problem"`
}

func (a *app) health() *cobra.Command {
	c := &cobra.Command{
		Use: "health", Short: "Say whether the server is well, for a container's health check",
		Long: "Say of each part of the running server whether it is well: whether pulls work, or with --live only whether the process does its work, so that starting it again would not help.\n\n" +
			"It asks what /readyz and /livez answer, through the socket in the data directory. Exit code 1 means that something is not well, or that no server answers.",
		Example: "  trustcast health\n  trustcast health --live\n  HEALTHCHECK CMD [\"/trustcast\", \"health\"]   # in a Dockerfile: no shell, no curl",
		Args:    names(),
	}
	live := c.Flags().Bool("live", false, "ask only whether the process does its work")
	out := output(c.Flags(), healthJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := ask(c.Context(), a, func(ctx context.Context, client pb.AdminServiceClient) (*pb.GetHealthResponse, error) {
			return client.GetHealth(ctx, &pb.GetHealthRequest{Live: *live})
		})
		if err != nil {
			return cli.Errorf(cli.Failed, "%w", err) // Docker knows 0 and 1
		}
		return a.printHealth(r, out.json())
	}
	return c
}

func (a *app) printHealth(r *pb.GetHealthResponse, asJSON bool) error {
	shown := healthJSON{Healthy: true, Parts: []partJSON{}}
	var bad error
	for _, p := range r.GetParts() {
		shown.Parts = append(shown.Parts, partJSON{p.GetName(), p.GetProblem() == "", p.GetProblem()})
		if p.GetProblem() != "" {
			shown.Healthy = false
			bad = cli.Errorf(cli.Failed, "%s is not well: %s; 'trustcast doctor' says what to do", p.GetName(), p.GetProblem())
		}
	}
	if asJSON {
		if err := cli.JSON(a.stdout, shown); err != nil {
			return err
		}
		return bad
	}
	for _, p := range shown.Parts {
		line := fmt.Sprintf("[+]%s ok", p.Name)
		if !p.OK {
			line = fmt.Sprintf("[-]%s failed: %s", p.Name, p.Problem)
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return bad
}
