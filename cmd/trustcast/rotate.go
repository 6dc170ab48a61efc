package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// rotateFlags are the flags of `trustcast ca rotate`.
type rotateFlags struct {
	wait, yes bool
	skip      []string
	deadline  duration
	out       *choice
}

func (a *app) caRotate() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the CA without a failed pull",
		Long: "Replace the registry's CA. Every host gets the new one beside the old; the registry switches once every host has proved that it trusts what will be served; then the old one goes.\n\n" +
			"With a rotation under way, --skip and --deadline change it. Ctrl-C while waiting leaves the rotation running. On a terminal the command asks first, unless --yes is given.",
		Example: "  trustcast ca rotate --wait\n  trustcast ca rotate --skip web-3          # do not wait for web-3; it pulls through the predecessors meanwhile\n  trustcast ca rotate --deadline 1h --yes",
		Args:    names(),
	}
	var f rotateFlags
	c.Flags().BoolVar(&f.wait, "wait", false, "show each host's progress and wait for the end")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().StringSliceVar(&f.skip, "skip", nil, "a `HOST` not to wait for; may be repeated")
	c.Flags().Var(&f.deadline, "deadline", "how long gone hosts are waited for after each step (default the server's --deadline)")
	f.out = output(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		before, err := a.now(c.Context())
		if err != nil {
			return err
		}
		if err := a.confirmRotation(before, f); err != nil {
			return err
		}
		began := time.Now()
		r, err := a.rotate(c.Context(), f)
		if err != nil {
			return err
		}
		if !f.wait {
			return a.printRotating(r, f.out.json())
		}
		return a.follow(c.Context(), r, f, began)
	}
	return c
}

func (a *app) rotate(ctx context.Context, f rotateFlags) (*pb.RotateCAResponse, error) {
	return ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RotateCAResponse, error) {
		return c.RotateCA(ctx, &pb.RotateCARequest{Skip: f.skip, Deadline: durationpb.New(time.Duration(f.deadline))})
	})
}

// confirmRotation asks a person at a terminal; scripts are not asked.
func (a *app) confirmRotation(s *pb.Status, f rotateFlags) error {
	_, reads := terminal(a.stdin)
	_, writes := terminal(a.stderr)
	if f.yes || !reads || !writes || s.GetRotation().GetPhase() != phaseIdle {
		return nil
	}
	present, gone := 0, []string{}
	for _, h := range s.GetHosts() {
		if h.GetPresent() {
			present++
		} else {
			gone = append(gone, h.GetName())
		}
	}
	question := fmt.Sprintf("Rotate the CA of %s? %s present", s.GetDomain(), count(present, "host"))
	if len(gone) > 0 {
		question += fmt.Sprintf(", %d gone (%s): each step waits for them until the deadline", len(gone), strings.Join(gone, ", "))
	}
	_, _ = io.WriteString(a.stderr, question+" [y/N] ") // the answer decides, not the question
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

type rotatedJSON struct {
	Rotation   uint64 `json:"rotation"`
	Generation uint64 `json:"generation"`
	Started    bool   `json:"started"`
}

func (a *app) printRotating(r *pb.RotateCAResponse, asJSON bool) error {
	if asJSON {
		return cli.JSON(a.stdout, rotatedJSON{r.GetRotation(), r.GetGeneration(), r.GetStarted()})
	}
	what := "is under way and has your changes"
	if r.GetStarted() {
		what = "has started"
	}
	a.say("Rotation %d %s; '%s' waits for its end.", r.GetRotation(), what, a.hint("status --wait"))
	return nil
}

// follow shows the rotation until it ends. Text goes to stdout; with JSON the
// progress is a remark and the result is the data.
func (a *app) follow(ctx context.Context, r *pb.RotateCAResponse, f rotateFlags, began time.Time) error {
	out := a.stdout
	if f.out.json() {
		out = a.stderr
	}
	view := newProgressView(out, a.getenv)
	p := newProgress(r.GetRotation(), r.GetStarted())
	over := func(s *pb.Status) bool {
		return s.GetRotation().GetPhase() == phaseIdle && s.GetRotation().GetNumber() >= r.GetRotation()
	}
	last, err := a.watch(ctx, func(s *pb.Status) { view.show(p, p.update(s, time.Since(began)), s) }, over)
	view.end()
	switch {
	case errors.Is(err, context.Canceled):
		return cli.Errorf(cli.Failed, "interrupted; rotation %d goes on in the server%s; '%s' shows it", r.GetRotation(), because(stillWaiting(last)), a.hint("status --wait"))
	case err != nil:
		return err
	case p.rolledBack:
		return cli.Errorf(cli.Failed, "rotation %d was rolled back; the old CA goes on, see '%s'", r.GetRotation(), a.hint("ca history"))
	case f.out.json():
		return cli.JSON(a.stdout, rotatedJSON{r.GetRotation(), last.GetGeneration(), r.GetStarted()})
	}
	return nil
}

func stillWaiting(s *pb.Status) string {
	var hosts []string
	for _, w := range s.GetRotation().GetWaitingFor() {
		hosts = append(hosts, w.GetHost())
	}
	if len(hosts) == 0 {
		return ""
	}
	return "it waits for " + strings.Join(hosts, ", ")
}
