package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func (a *app) status() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the registry, its CA, the rotation and every host",
		Long: "Show the registry, its CA, the rotation and every host.\n\n" +
			"Exit code 3 means that the server answered but something needs a look: a host that is not trusted, a rotation that waits past its deadline, a warning; strangers alone do not. With --wait it means that the time was up.",
		Example: "  trustcast status\n  trustcast status --wait --timeout 5m      # until no rotation runs and every present host is trusted\n  trustcast status -o json | jq -r '.hosts[].name'",
		Args:    names(),
	}
	wait := c.Flags().Bool("wait", false, "wait until no rotation runs and every present host is trusted")
	var timeout duration
	c.Flags().Var(&timeout, "timeout", "wait no longer than this (default without limit)")
	out := output(c.Flags(), statusJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, bad, err := a.observe(c.Context(), *wait, time.Duration(timeout))
		if err != nil {
			return err
		}
		if err := printStatus(a.stdout, s, out.json()); err != nil {
			return err
		}
		return bad
	}
	return c
}

// observe returns the status, and what is bad about it.
func (a *app) observe(ctx context.Context, wait bool, timeout time.Duration) (s *pb.Status, bad, err error) {
	watching, cancel := ctx, context.CancelFunc(func() {})
	if wait && timeout > 0 {
		watching, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	s, err = a.now(watching) // a server that never answers is not waited for
	switch {
	case err != nil:
		return nil, nil, ended(watching, err)
	case !wait:
		return s, troubles(s), nil
	case settled(s):
		return s, nil, nil
	}
	last, err := a.watch(watching, nil, settled)
	if last != nil {
		s = last
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return s, cli.Errorf(cli.Bad, "not settled after %s: %s", timeout, unsettled(s)), nil
	}
	return s, nil, err
}

// settled: no rotation runs, and every present host is trusted.
func settled(s *pb.Status) bool { return unsettled(s) == "" }

// unsettled names who or what is waited for, with the advice; empty when settled.
func unsettled(s *pb.Status) string {
	var parts []string
	named := map[string]bool{}
	for _, w := range s.GetRotation().GetWaitingFor() {
		named[w.GetHost()] = true
		parts = append(parts, fmt.Sprintf("%s %s (%s)", w.GetHost(), w.GetReason(), w.GetAdvice()))
	}
	for _, h := range s.GetHosts() {
		if h.GetPresent() && h.GetState() != stateTrusted && !named[h.GetName()] {
			parts = append(parts, fmt.Sprintf("%s is %s%s", h.GetName(), h.GetState(), because(h.GetProblem())))
		}
	}
	if frozen := s.GetRotation().GetFrozen(); frozen != "" && len(parts) == 0 {
		parts = append(parts, frozen)
	}
	if phase := s.GetRotation().GetPhase(); phase != phaseIdle && len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("rotation %d is %s", s.GetRotation().GetNumber(), phase))
	}
	return strings.Join(parts, "; ")
}

// troubles says what makes `status` exit with 3, or nil.
func troubles(s *pb.Status) error {
	var parts []string
	for _, h := range s.GetHosts() {
		if h.GetState() != stateTrusted {
			parts = append(parts, fmt.Sprintf("%s is %s", h.GetName(), h.GetState()))
		}
	}
	if s.GetRotation().GetFrozen() != "" {
		parts = append(parts, "the server is frozen or not open yet")
	}
	if late := overdue(s); len(late) > 0 {
		parts = append(parts, fmt.Sprintf("rotation %d waits past its deadline for %s", s.GetRotation().GetNumber(), strings.Join(late, ", ")))
	}
	if s.GetPaused() != "" {
		parts = append(parts, "automatic actions pause")
	}
	if n := len(s.GetWarnings()); n > 0 {
		parts = append(parts, count(n, "warning"))
	}
	if len(parts) == 0 {
		return nil
	}
	return cli.Errorf(cli.Bad, "%s; what to do stands in the status", strings.Join(parts, "; "))
}

// overdue names who a rotation waits for although its deadline is over.
func overdue(s *pb.Status) []string {
	deadline := s.GetRotation().GetDeadline()
	if s.GetRotation().GetPhase() == phaseIdle || deadline == nil || s.GetTime().AsTime().Before(deadline.AsTime()) {
		return nil
	}
	var late []string
	for _, w := range s.GetRotation().GetWaitingFor() {
		late = append(late, w.GetHost())
	}
	return late
}

func because(problem string) string {
	if problem == "" {
		return ""
	}
	return ": " + problem
}

func printStatus(w io.Writer, s *pb.Status, asJSON bool) error {
	if asJSON {
		return cli.JSON(w, newStatusJSON(s))
	}
	if err := table(w, slices.Concat(registryRows(s), rotationRows(s), ringRows(s), pausedRows(s))...); err != nil {
		return err
	}
	if len(s.GetHosts()) == 0 {
		if _, err := fmt.Fprintf(w, "\nNo hosts yet; 'trustcast token create' prints the line that joins one.\n"); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(w); err != nil {
		return err
	} else if err := printHosts(w, s); err != nil {
		return err
	}
	if err := printStrangers(w, s.GetStrangers(), s.GetTime()); err != nil {
		return err
	}
	for _, warning := range s.GetWarnings() {
		if _, err := fmt.Fprintf(w, "\nwarning: %s\n", warning); err != nil {
			return err
		}
	}
	return nil
}

func registryRows(s *pb.Status) []string {
	registry := s.GetDomain()
	if len(s.GetAliases()) > 0 {
		registry += ", also " + strings.Join(s.GetAliases(), ", ")
	}
	serving := s.GetServing()
	return []string{
		row("registry", registry),
		row("generation", fmt.Sprintf("%d (%s)", s.GetGeneration(), cli.Short(s.GetFingerprint()))),
		row("serving", fmt.Sprintf("%s until %s, certificate until %s, %s", serving.GetIssuer(), day(serving.GetCaNotAfter()),
			day(serving.GetLeafNotAfter()), count(int(serving.GetPredecessors()), "predecessor"))),
		row("server", fmt.Sprintf("%s, up %s, registry %s, agents %s, gossip %s", s.GetVersion(), span(s.GetTime().AsTime().Sub(s.GetStarted().AsTime())),
			s.GetRegistryAddress(), s.GetGrpcAddress(), orOff(s.GetGossipAddress()))),
		row("backup", backupText(s)),
	}
}

// backupText is about the newest backup; one that lacks something is no bad state.
func backupText(s *pb.Status) string {
	switch lacks := s.GetBackupLacks(); {
	case s.GetBackedUp() == nil && lacks == "":
		return "" // a server that does not say
	case lacks != "":
		return "warning: " + lacks
	}
	return ago(s.GetBackedUp(), s.GetTime())
}

func pausedRows(s *pb.Status) []string {
	if s.GetPaused() == "" {
		return nil
	}
	return []string{row("paused", s.GetPaused())}
}

func orOff(address string) string {
	if address == "" {
		return "off"
	}
	return address
}

func rotationRows(s *pb.Status) []string {
	r := s.GetRotation()
	rows := []string{row("rotation", rotationText(s))}
	if r.GetFrozen() != "" {
		rows = append(rows, row("  frozen", r.GetFrozen()))
	}
	for _, wait := range r.GetWaitingFor() {
		rows = append(rows, row("  waits for", wait.GetHost()+" "+wait.GetReason()), row("  to do", wait.GetAdvice()))
	}
	return rows
}

func rotationText(s *pb.Status) string {
	r := s.GetRotation()
	if r.GetPhase() == phaseIdle {
		return phaseIdle
	}
	text := fmt.Sprintf("number %d is %s since %s", r.GetNumber(), r.GetPhase(), span(s.GetTime().AsTime().Sub(r.GetStarted().AsTime())))
	if r.GetMode() == modeCompromised {
		text += ", replaces a stolen CA"
	}
	if r.GetRollback() {
		text += ", being rolled back"
	}
	if len(r.GetSkipped()) > 0 {
		text += ", without " + strings.Join(r.GetSkipped(), ", ")
	}
	return text
}
