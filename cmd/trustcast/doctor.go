package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// diagnosisJSON is `doctor -o json`. Keys and the checks' IDs are stable; checks is never
// null.
type diagnosisJSON struct {
	// Verdict is the worst state of all checks.
	Verdict string `json:"verdict"`
	// Checks are what was looked at.
	Checks []checkJSON `json:"checks"`
}

type checkJSON struct {
	// ID is stable.
	ID string `json:"id"`
	// State is ok, warn or fail.
	State string `json:"state"`
	// Subject is what it is about, such as a file; else empty.
	Subject string `json:"subject"`
	// Text is what was seen.
	Text string `json:"text"`
	// Fix is what to do, else empty.
	Fix string `json:"fix"`
}

func (a *app) doctor() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with the server and its fleet, and what to do",
		Long: "Look at everything that makes the server work: records, keys and certificates, disk, permissions, ports, the engine, rotation, hosts, clocks, backup. Each line is ok, warn or fail, with what to do. Nothing is changed.\n\n" +
			"A running server is asked. Without one the data directory and this machine are looked at, with the ports and the engine that 'trustcast server' would be started with here; it says what would keep it from starting. Exit code 3 means that something fails.",
		Example: "  trustcast doctor\n  trustcast doctor -o json | jq -r '.checks[] | select(.state != \"ok\") | .text'",
		Args:    names(),
	}
	out := output(c.Flags(), diagnosisJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		checks, err := a.examine(c)
		if err != nil {
			return err
		}
		return a.printDiagnosis(checks, out.json())
	}
	return c
}

// examine asks the server, or looks at what a stopped one left.
func (a *app) examine(c *cobra.Command) ([]*pb.Check, error) {
	r, err := ask(c.Context(), a, func(ctx context.Context, client pb.AdminServiceClient) (*pb.ExamineResponse, error) {
		return client.Examine(ctx, &pb.ExamineRequest{})
	})
	if err == nil || cli.Code(err) != cli.Unreachable || errors.Is(err, fs.ErrPermission) {
		return r.GetChecks(), err
	}
	why := err
	cfg, _, err := a.startedHere(c)
	if err != nil {
		return nil, err
	}
	return server.ExamineStopped(c.Context(), cfg, why)
}

// verdictOf is the worst state among checks.
func verdictOf(checks []*pb.Check) (verdict string, fails int) {
	verdict = "ok"
	for _, check := range checks {
		switch check.GetState() {
		case "fail":
			verdict = "fail"
			fails++
		case "warn":
			if verdict == "ok" {
				verdict = "warn"
			}
		}
	}
	return verdict, fails
}

func (a *app) printDiagnosis(checks []*pb.Check, asJSON bool) error {
	verdict, fails := verdictOf(checks)
	if asJSON {
		shown := diagnosisJSON{Verdict: verdict, Checks: []checkJSON{}}
		for _, check := range checks {
			shown.Checks = append(shown.Checks, checkJSON{check.GetId(), check.GetState(), check.GetSubject(), check.GetText(), check.GetFix()})
		}
		if err := cli.JSON(a.stdout, shown); err != nil {
			return err
		}
	} else if err := a.writeDiagnosis(checks, verdict); err != nil {
		return err
	}
	if fails > 0 {
		return cli.Errorf(cli.Bad, "%s; what to do stands above", count(fails, "check")+" failed")
	}
	return nil
}

// writeDiagnosis is for people: under headings, each finding with what to do below it.
func (a *app) writeDiagnosis(checks []*pb.Check, verdict string) error {
	var b strings.Builder
	var headings []string // each once, though what is under it was not found in one go
	under := map[string][]*pb.Check{}
	for _, check := range checks {
		heading, _, _ := strings.Cut(check.GetId(), ".")
		if under[heading] == nil {
			headings = append(headings, heading)
		}
		under[heading] = append(under[heading], check)
	}
	for _, heading := range headings {
		fmt.Fprintln(&b, heading)
		for _, check := range under[heading] {
			fmt.Fprintf(&b, "  %-4s  %s\n", check.GetState(), check.GetText())
			if check.GetFix() != "" {
				fmt.Fprintf(&b, "        → %s\n", check.GetFix())
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", map[string]string{
		"ok": "All is well.", "warn": "It works; there is something to look at.", "fail": "Something does not work.",
	}[verdict])
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}
