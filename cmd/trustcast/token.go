package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func (a *app) token() *cobra.Command {
	return a.group("token", "Make, list and revoke the tokens that hosts join with", "  trustcast token create --uses 20\n  trustcast token ls",
		a.tokenCreate(), a.tokenList(), a.tokenRemove())
}

func (a *app) tokenCreate() *cobra.Command {
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a join token and print the line that joins a host",
		Long:  "Make a join token and print the line that joins a host. The token is shown only this once.",
		Example: "  trustcast token create\n  trustcast token create --uses 20 --expires 7d\n" +
			"  trustcast token create --host web-3                       # replaces the host of that name\n" +
			"  ssh web-3 trustcast-agent join registry.example.com:7443 --token \"$(trustcast token create -q)\"",
		Args: names(),
	}
	var expires lifetime
	uses := number{least: 0, most: math.MaxUint16}
	quiet := c.Flags().BoolP("quiet", "q", false, "print the token alone, whatever -o says")
	c.Flags().Var(&expires, "expires", "how long it can be used, or never (default 24h)")
	c.Flags().Var(&uses, "uses", "how many hosts may use it; 0 is no limit")
	host := c.Flags().String("host", "", "only for the host `NAME`, once; replaces the host that has the name now")
	out := output(c.Flags(), createdTokenJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.CreateTokenResponse, error) {
			return c.CreateToken(ctx, &pb.CreateTokenRequest{Expires: durationpb.New(time.Duration(expires)), Uses: int32(uses.value), Host: *host})
		})
		if err != nil {
			return err
		}
		switch {
		case *quiet:
			_, err = fmt.Fprintln(a.stdout, r.GetToken())
			return err
		case out.json():
			return cli.JSON(a.stdout, createdTokenJSON{r.GetId(), r.GetToken(), instant(r.GetExpires()), r.GetJoinAddress(), joinLine(r)})
		default:
			return a.printJoin(r)
		}
	}
	return c
}

type createdTokenJSON struct {
	// ID is what revokes it.
	ID string `json:"id"`
	// Token is the secret itself.
	Token string `json:"token"`
	// Expires is null if it never does.
	Expires *time.Time `json:"expires"`
	// JoinAddress is HOST:PORT of the server; empty if it does not know it.
	JoinAddress string `json:"join_address"`
	// JoinLine is to be run on a host, as root.
	JoinLine string `json:"join_line"`
}

func joinLine(r *pb.CreateTokenResponse) string {
	return fmt.Sprintf("trustcast-agent join %s --token %s", joinAddress(r), r.GetToken())
}

func joinAddress(r *pb.CreateTokenResponse) string {
	if r.GetJoinAddress() == "" {
		return "HOST:7443"
	}
	return r.GetJoinAddress()
}

func (a *app) printJoin(r *pb.CreateTokenResponse) error {
	a.say("Run on each host, as root:")
	if _, err := fmt.Fprintln(a.stdout, joinLine(r)); err != nil {
		return err
	}
	a.say("or, so that the token never stands in a process list:")
	if _, err := fmt.Fprintf(a.stdout, "echo %s | trustcast-agent join %s --token-file -\n", r.GetToken(), joinAddress(r)); err != nil {
		return err
	}
	until := "for ever"
	if instant(r.GetExpires()) != nil {
		until = "until " + day(r.GetExpires())
	}
	a.say("It can be used %s, and is shown only this once; '%s' revokes it.", until, a.hint("token rm "+r.GetId()))
	if r.GetJoinAddress() == "" {
		a.say("The server does not know the address that hosts reach it at: put it in HOST's place, or start it with --advertise.")
	}
	return nil
}

type tokenJSON struct {
	// ID is what revokes it.
	ID string `json:"id"`
	// State is valid, expired, used up or revoked.
	State string `json:"state"`
	// Host is the only name that it is for, else empty.
	Host string `json:"host"`
	// Uses is how many hosts may use it; 0 is no limit.
	Uses int32 `json:"uses"`
	// Used is how many did.
	Used int32 `json:"used"`
	// Created is when.
	Created *time.Time `json:"created"`
	// Expires is null if it never does.
	Expires *time.Time `json:"expires"`
}

func (a *app) tokenList() *cobra.Command {
	c := &cobra.Command{Use: "ls", Short: "List the tokens, without their secrets", Example: "  trustcast token ls --state valid\n  trustcast token ls -o json", Args: names()}
	states := choices{allowed: tokenStates}
	c.Flags().Var(&states, "state", "only tokens in this state; may be repeated")
	quiet := c.Flags().BoolP("quiet", "q", false, "print IDs alone, whatever -o says")
	config.FromCommandLine(c.Flags(), "state")
	out := output(c.Flags(), []tokenJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		tokens, err := a.tokens(c.Context())
		if err != nil {
			return err
		}
		tokens = slices.DeleteFunc(tokens, func(t *pb.TokenInfo) bool { return !states.fit(t.GetState()) })
		switch {
		case *quiet:
			return printNames(a.stdout, tokens, (*pb.TokenInfo).GetId)
		case out.json():
			return cli.JSON(a.stdout, newTokensJSON(tokens))
		}
		rows := []string{row("ID", "STATE", "USED", "HOST", "CREATED", "EXPIRES")}
		for _, t := range tokens {
			rows = append(rows, row(t.GetId(), t.GetState(), usedOf(t), t.GetHost(), day(t.GetCreated()), expiry(t)))
		}
		return table(a.stdout, rows...)
	}
	return c
}

func newTokensJSON(tokens []*pb.TokenInfo) []tokenJSON {
	out := []tokenJSON{}
	for _, t := range tokens {
		out = append(out, tokenJSON{t.GetId(), t.GetState(), t.GetHost(), t.GetUses(), t.GetUsed(), instant(t.GetCreated()), instant(t.GetExpires())})
	}
	return out
}

func usedOf(t *pb.TokenInfo) string {
	if t.GetUses() == 0 {
		return fmt.Sprint(t.GetUsed())
	}
	return fmt.Sprintf("%d of %d", t.GetUsed(), t.GetUses())
}

func expiry(t *pb.TokenInfo) string {
	if instant(t.GetExpires()) == nil {
		return "never"
	}
	return day(t.GetExpires())
}

func (a *app) tokenRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Short: "Revoke a token; hosts that joined with it stay",
		Example: "  trustcast token rm 4f9c0d1e2a3b", Args: names("the token's ID"),
		RunE: func(c *cobra.Command, args []string) error {
			_, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RemoveTokenResponse, error) {
				return c.RemoveToken(ctx, &pb.RemoveTokenRequest{Id: args[0]})
			})
			if err == nil {
				a.say("Token %s is revoked; hosts that joined with it stay.", args[0])
			}
			return err
		},
	}
}
