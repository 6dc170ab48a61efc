package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// rotateFlags are the flags of `trustcast ca rotate`.
type rotateFlags struct {
	wait, yes, dryRun    bool
	compromised, replace bool
	rotation             uint64
	skip                 []string
	deadline             duration
	out                  *choice
}

func (a *app) caRotate() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the CA without a failed pull",
		Long: "Replace the registry's CA. Every host gets the new one beside the old; the registry switches once every host has proved that it trusts what will be served; then the old one goes.\n\n" +
			"With a rotation under way, --skip and --deadline change it, and --replace begins it anew with another CA while it is staged. Ctrl-C while waiting leaves the rotation running. On a terminal the command asks first, unless --yes is given.\n\n" +
			"--compromised is for a CA whose private key was stolen, in any phase: nothing that the old key signed counts any more, join tokens are revoked, the gossip key is replaced, and hosts that are not ready within 30 s fail until they come back. A stolen state directory is worse: then run 'trustcast init' anew and join every host again.",
		Example: "  trustcast ca rotate --wait\n  trustcast ca rotate --dry-run             # what would happen to which host; changes nothing\n  trustcast ca rotate --skip web-3          # do not wait for web-3; it pulls through the predecessors meanwhile\n  trustcast ca rotate --deadline 1h --yes\n  trustcast ca rotate --compromised --wait  # the CA's key was stolen",
		Args:    names(),
	}
	var f rotateFlags
	c.Flags().BoolVar(&f.wait, "wait", false, "show each host's progress and wait for the end")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().StringSliceVar(&f.skip, "skip", nil, "a `HOST` not to wait for; may be repeated")
	c.Flags().Var(&f.deadline, "deadline", "how long gone hosts are waited for after each step (default the server's --deadline; 30s with --compromised)")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would happen to which host, and change nothing")
	c.Flags().BoolVar(&f.compromised, "compromised", false, "the CA's key was stolen: trust nothing that it signed")
	c.Flags().BoolVar(&f.replace, "replace", false, "begin a staged rotation anew, with another CA")
	c.Flags().Uint64Var(&f.rotation, "rotation", 0, "change rotation `NUMBER`, and start none when it is over")
	f.out = output(c.Flags(), rotatedJSON{}, planJSON{})
	config.FromCommandLine(c.Flags(), "skip", "deadline", "dry-run", "compromised", "replace", "rotation")
	c.PreRunE = func(c *cobra.Command, _ []string) error { return f.check(c.Flags()) }
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.dryRun {
			return a.printPlan(c.Context(), f)
		}
		if err := a.confirmRotation(c.Context(), f); err != nil {
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

// check refuses what cannot be meant.
func (f rotateFlags) check(given *pflag.FlagSet) error {
	numbered := given.Changed("rotation")
	switch {
	case slices.Contains(f.skip, "") || given.Changed("skip") && len(f.skip) == 0: // '' is an empty list
		return cli.Errorf(cli.Usage, "--skip names no host; '--skip NAME' passes over one")
	case numbered && f.rotation == 0:
		return cli.Errorf(cli.Usage, "--rotation 0: rotations are numbered from 1; leave it out to start one")
	case f.compromised && f.replace:
		return cli.Errorf(cli.Usage, "--compromised replaces a staged CA too; leave --replace out")
	case numbered && (f.compromised || f.replace || f.dryRun):
		return cli.Errorf(cli.Usage, "--rotation changes a rotation that is under way; leave it out to start another one, or to plan one")
	}
	return nil
}

func (a *app) rotate(ctx context.Context, f rotateFlags) (*pb.RotateCAResponse, error) {
	return ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RotateCAResponse, error) {
		return c.RotateCA(ctx, &pb.RotateCARequest{
			Skip: f.skip, Deadline: durationpb.New(time.Duration(f.deadline)),
			Compromised: f.compromised, Replace: f.replace, Rotation: f.rotation,
		})
	})
}

// confirmRotation asks a person at a terminal; scripts are not asked. It shows who
// will break before it asks.
func (a *app) confirmRotation(ctx context.Context, f rotateFlags) error {
	if f.yes || f.rotation != 0 || !a.interactive() {
		return nil
	}
	s, err := a.now(ctx)
	if err != nil {
		return err
	}
	if s.GetRotation().GetPhase() != phaseIdle && !f.compromised && !f.replace {
		return nil // it is changed, or refused
	}
	plan, err := a.plan(ctx, f)
	if err != nil {
		return err
	}
	_, _ = io.WriteString(a.stderr, question(s.GetDomain(), plan, f)+" [y/N] ") // the answer decides, not the question
	return a.agreed()
}

type rotatedJSON struct {
	// Rotation is its number.
	Rotation uint64 `json:"rotation"`
	// Generation is the one that hosts should have, with --wait after the end.
	Generation uint64 `json:"generation"`
	// Started is false if a rotation was under way and only took the changes.
	Started bool `json:"started"`
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
		return s.GetRotation().GetNumber() != r.GetRotation() || s.GetRotation().GetPhase() == phaseIdle
	}
	show := func(s *pb.Status) {
		elapsed := time.Since(began)
		view.show(p, append(p.update(s, elapsed), p.waits(s, elapsed)...), s)
	}
	last, err := a.watch(ctx, func(s *pb.Status) {
		if !over(s) { // how it ended is to be learnt first
			show(s)
		}
	}, over)
	if err == nil {
		err = a.learn(ctx, p, last)
	}
	now := last.GetRotation().GetNumber()
	if err == nil && now == r.GetRotation() {
		show(last)
	}
	view.end()
	switch {
	case errors.Is(err, context.Canceled) && (last == nil || !over(last)):
		return cli.Errorf(cli.Failed, "interrupted; rotation %d goes on in the server%s; '%s' shows it", r.GetRotation(), because(stillWaiting(last)), a.hint("status --wait"))
	case err != nil:
		return err
	case p.rolledBack:
		return cli.Errorf(cli.Failed, "rotation %d was rolled back; the old CA goes on, see '%s'", r.GetRotation(), a.hint("ca history"))
	case now > r.GetRotation() && p.doneAt == 0:
		return cli.Errorf(cli.Failed, "rotation %d made way for rotation %d; '%s' shows why, '%s' waits for the newer one", r.GetRotation(), now, a.hint("ca history"), a.hint("status --wait"))
	case now > r.GetRotation():
		a.say("Rotation %d is done: generation %d; rotation %d has begun since, '%s' waits for its end.", r.GetRotation(), p.doneAt, now, a.hint("status --wait"))
	}
	if f.out.json() {
		return cli.JSON(a.stdout, rotatedJSON{r.GetRotation(), cmp.Or(p.doneAt, last.GetGeneration()), r.GetStarted()})
	}
	return nil
}

// learn asks the history how a rotation that is over went, unless that was seen: a
// rollback, or the end itself, may pass between two statuses.
func (a *app) learn(ctx context.Context, p *progress, last *pb.Status) error {
	now := last.GetRotation().GetNumber()
	switch {
	case now < p.number:
		return cli.Errorf(cli.Failed, "the server is at rotation %d and does not know rotation %d: its data is from before, perhaps restored from a backup; '%s' shows what it knows, '%s' starts another rotation", now, p.number, a.hint("ca history"), a.hint("ca rotate"))
	case now == p.number && p.decided:
		return nil
	}
	away := absence{remark: goneRemark}
	for {
		ca, err := a.showCA(ctx)
		if err == nil {
			p.read(ca.GetHistory())
			return nil
		}
		if wentAway(err) && a.sitOut(ctx, &away, err) == nil {
			continue
		}
		return fmt.Errorf("rotation %d is over, but how it ended could not be asked; '%s' shows it: %w", p.number, a.hint("ca history"), ended(ctx, err))
	}
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
