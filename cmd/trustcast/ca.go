package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// A CA certificate is public.
const caExportMode = 0o644

func (a *app) ca() *cobra.Command {
	return a.group("ca", "Show, export and rotate the registry's CA", "  trustcast ca show\n  trustcast ca rotate --wait",
		a.caShow(), a.caExport(), a.caRotate(), a.caRollback(), a.caHistory(), a.caServeNow())
}

func (a *app) showCA(ctx context.Context) (*pb.ShowCAResponse, error) {
	return ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.ShowCAResponse, error) {
		return c.ShowCA(ctx, &pb.ShowCARequest{})
	})
}

type caJSON struct {
	// Generation grows each time what hosts should trust changes.
	Generation uint64 `json:"generation"`
	// Fingerprint is the SHA-256 of what hosts should trust now.
	Fingerprint string `json:"fingerprint"`
	// Certificates are all that exist now.
	Certificates []certificateJSON `json:"certificates"`
	// BundlePEM is what ca export writes.
	BundlePEM string `json:"bundle_pem"`
}

type certificateJSON struct {
	// Role is active, other or predecessor.
	Role string `json:"role"`
	// Subject is the common name.
	Subject string `json:"subject"`
	// Fingerprint is the SHA-256 of the certificate.
	Fingerprint string `json:"fingerprint"`
	// NotBefore is from when on it counts.
	NotBefore *time.Time `json:"not_before"`
	// NotAfter is when it ends.
	NotAfter *time.Time `json:"not_after"`
	// Names are those that it may sign for.
	Names []string `json:"names"`
}

func (a *app) caShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Show the CA certificates that exist now",
		Long:    "Show the CA certificates that exist now: the active one, during a rotation the other one, and the predecessors that are served for hosts that slept.",
		Example: "  trustcast ca show", Args: names(),
	}
	out := output(c.Flags(), caJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := a.showCA(c.Context())
		if err != nil {
			return err
		}
		if out.json() {
			return cli.JSON(a.stdout, newCAJSON(r))
		}
		if err := table(a.stdout, row("generation", strconv.FormatUint(r.GetGeneration(), 10)), row("fingerprint", r.GetFingerprint())); err != nil {
			return err
		}
		rows := []string{"", row("ROLE", "SUBJECT", "FINGERPRINT", "FROM", "UNTIL", "NAMES")}
		for _, cert := range r.GetCertificates() {
			rows = append(rows, row(cert.GetRole(), cert.GetSubject(), cli.Short(cert.GetFingerprint()),
				day(cert.GetNotBefore()), day(cert.GetNotAfter()), strings.Join(cert.GetNames(), ",")))
		}
		return table(a.stdout, rows...)
	}
	return c
}

func newCAJSON(r *pb.ShowCAResponse) caJSON {
	certs := []certificateJSON{}
	for _, c := range r.GetCertificates() {
		certs = append(certs, certificateJSON{c.GetRole(), c.GetSubject(), c.GetFingerprint(), instant(c.GetNotBefore()), instant(c.GetNotAfter()), list(c.GetNames())})
	}
	return caJSON{r.GetGeneration(), r.GetFingerprint(), certs, string(r.GetBundlePem())}
}

func (a *app) caExport() *cobra.Command {
	return &cobra.Command{
		Use: "export FILE|-", Short: "Write the CA certificates that hosts should trust now, as PEM",
		Long:    "Write the CA certificates that hosts should trust now, as PEM. Hosts with an agent get them by themselves; this is for whatever has none.",
		Example: "  trustcast ca export ca.crt\n  trustcast ca export - | openssl x509 -noout -subject", Args: names("a FILE, or - for standard output"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.showCA(c.Context())
			if err != nil {
				return err
			}
			return a.export(args[0], r.GetBundlePem(), caExportMode)
		},
	}
}

func (a *app) caRollback() *cobra.Command {
	return &cobra.Command{
		Use: "rollback", Short: "Take a rotation back before the old CA is retired",
		Long:    "Take a rotation back: the new CA is forgotten, the old one goes on. After the switch the old one serves again first, if it lives for 30 days at least. Once the old CA is retired, or the switch came after a theft, there is no way back; a further rotation is always possible.",
		Example: "  trustcast ca rollback", Args: names(),
		RunE: func(c *cobra.Command, _ []string) error {
			before, err := a.now(c.Context())
			if err != nil {
				return err
			}
			_, err = ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RollbackCAResponse, error) {
				return c.RollbackCA(ctx, &pb.RollbackCARequest{})
			})
			if err == nil && before.GetRotation().GetMode() == modeCompromised {
				a.say("The CA whose key was reported stolen goes on serving: replace it with '%s'.", a.hint("ca rotate --compromised"))
			}
			if err == nil {
				a.say("The rotation is being taken back; '%s' waits until every host has only the old CA again.", a.hint("status --wait"))
			}
			return err
		},
	}
}

type historyJSON struct {
	// Time is when it happened.
	Time *time.Time `json:"time"`
	// Rotation is its number; 0 for none.
	Rotation uint64 `json:"rotation"`
	// Generation is the one from then on.
	Generation uint64 `json:"generation"`
	// Event is what happened, like created, rotate, switch, retire, done, rollback, skip or leaf.
	Event string `json:"event"`
	// By is who or what caused it.
	By string `json:"by"`
	// Detail names hosts or certificates.
	Detail string `json:"detail"`
	// WaitedFor are hosts that the step waited for last.
	WaitedFor []string `json:"waited_for"`
}

func (a *app) caHistory() *cobra.Command {
	c := &cobra.Command{
		Use: "history", Short: "Show what happened to the CA, when, and who caused it",
		Long:    "Show each step of each rotation: its time, who or what caused it (an operator's uid, age, evidence, the deadline after a theft, the end of a CA), whom it waited for last, and who was left behind.",
		Example: "  trustcast ca history -o json", Args: names(),
	}
	out := output(c.Flags(), []historyJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := a.showCA(c.Context())
		if err != nil {
			return err
		}
		if out.json() {
			entries := []historyJSON{}
			for _, e := range r.GetHistory() {
				entries = append(entries, historyJSON{instant(e.GetTime()), e.GetRotation(), e.GetGeneration(), e.GetEvent(), e.GetBy(), e.GetDetail(), list(e.GetWaitedFor())})
			}
			return cli.JSON(a.stdout, entries)
		}
		rows := []string{row("TIME", "ROTATION", "GENERATION", "EVENT", "BY", "WAITED FOR", "DETAIL")}
		for _, e := range r.GetHistory() {
			rows = append(rows, row(e.GetTime().AsTime().Format(time.RFC3339), fmt.Sprint(e.GetRotation()), fmt.Sprint(e.GetGeneration()), e.GetEvent(), e.GetBy(), strings.Join(e.GetWaitedFor(), ","), e.GetDetail()))
		}
		return table(a.stdout, rows...)
	}
	return c
}
