package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// outlooks of a host, as the protocol has them.
const (
	outlookFails  = "fails"
	outlookHolds  = "holds"
	outlookSleeps = "sleeps"
)

// plan asks what a rotation would do.
func (a *app) plan(ctx context.Context, f rotateFlags) (*pb.PlanRotationResponse, error) {
	return ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.PlanRotationResponse, error) {
		return c.PlanRotation(ctx, &pb.PlanRotationRequest{Skip: f.skip, Compromised: f.compromised, Replace: f.replace})
	})
}

type planJSON struct {
	// Blocked is why none can start, in words, else empty.
	Blocked string `json:"blocked"`
	// Hosts are all of the fleet.
	Hosts []outlookJSON `json:"hosts"`
	// Strangers use the registry, and may fail.
	Strangers []strangerJSON `json:"strangers"`
}

type outlookJSON struct {
	// Host is its name.
	Host string `json:"host"`
	// Outlook is ready, holds, sleeps, fails, joining or skipped.
	Outlook string `json:"outlook"`
	// Text is why, and what to do, in words.
	Text string `json:"text"`
}

// printPlan is `ca rotate --dry-run`.
func (a *app) printPlan(ctx context.Context, f rotateFlags) error {
	p, err := a.plan(ctx, f)
	if err != nil {
		return err
	}
	if f.out.json() {
		out := planJSON{Blocked: p.GetBlocked(), Hosts: []outlookJSON{}, Strangers: newStrangersJSON(p.GetStrangers())}
		for _, h := range p.GetHosts() {
			out.Hosts = append(out.Hosts, outlookJSON{h.GetHost(), h.GetOutlook(), h.GetText()})
		}
		return cli.JSON(a.stdout, out)
	}
	rows := []string{row("HOST", "OUTLOOK", "WHY")}
	for _, h := range p.GetHosts() {
		rows = append(rows, row(h.GetHost(), h.GetOutlook(), h.GetText()))
	}
	if err := table(a.stdout, rows...); err != nil {
		return err
	}
	if err := printStrangers(a.stdout, p.GetStrangers(), timestamppb.Now()); err != nil {
		return err
	}
	if f.compromised {
		a.say("Join tokens would be revoked, and the gossip key replaced.")
	}
	if p.GetBlocked() != "" {
		a.say("It cannot start: %s", p.GetBlocked())
	}
	a.say("Nothing was changed.")
	return nil
}

// question is what a person is asked before a rotation: who will break, if
// anybody, line by line.
func question(domain string, p *pb.PlanRotationResponse, f rotateFlags) string {
	var b strings.Builder
	for _, what := range []string{outlookFails, outlookHolds, outlookSleeps} {
		for _, h := range p.GetHosts() {
			if h.GetOutlook() == what {
				fmt.Fprintf(&b, "  %s %s\n", h.GetHost(), h.GetText())
			}
		}
	}
	for _, s := range p.GetStrangers() {
		fmt.Fprintf(&b, "  %s uses the registry and is no enrolled host: it fails from the switch on unless it gets the new CA some other way\n", s.GetAddress())
	}
	ready := count(len(slices.DeleteFunc(slices.Clone(p.GetHosts()), func(h *pb.HostOutlook) bool { return h.GetOutlook() != "ready" })), "host")
	if f.compromised {
		fmt.Fprintf(&b, "Replace the stolen CA of %s? Join tokens are revoked too. %s ready.", domain, ready)
	} else {
		fmt.Fprintf(&b, "Rotate the CA of %s? %s ready.", domain, ready)
	}
	return b.String()
}
