package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// offerLimit is how long somebody who presses Tab waits for the server.
const offerLimit = time.Second

// lister names what the server has, each with a tab and a word about it after it.
type lister func(ctx context.Context, a *app) ([]string, error)

// offer has a shell complete what flags and arguments may be: words of a few, and the
// names of hosts, users and tokens that the server has now.
func (a *app) offer(root *cobra.Command) {
	arguments := map[string]lister{
		"host ls": hostNames, "host show": hostNames, "host rm": hostNames,
		"user add": userNames, "user rm": userNames, "user ls": userNames, "token rm": tokenIDs,
	}
	values := map[string]lister{"ca rotate --skip": hostNames, "token create --host": hostNames}
	for _, c := range leaves(root) {
		path := strings.TrimPrefix(c.CommandPath(), root.Name()+" ")
		switch {
		case arguments[path] != nil:
			c.ValidArgsFunction = a.named(arguments[path], strings.Contains(c.Use, "..."))
		case c.ValidArgs == nil && !strings.Contains(c.Use, "FILE"):
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		c.Flags().VisitAll(func(f *pflag.Flag) { a.offerValue(c, f, values[path+" --"+f.Name]) })
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) { a.offerValue(c, f, nil) })
	}
}

// offerValue has a flag's value completed: by names, words, or paths if it is one.
func (a *app) offerValue(c *cobra.Command, f *pflag.Flag, list lister) {
	complete := cobra.NoFileCompletions
	value, _ := pflag.UnquoteUsage(f)
	switch word := strings.ToLower(value); {
	case list != nil:
		complete = a.named(list, true)
	case strings.Contains(word, "file") || strings.Contains(word, "recipient"):
		return // the shell's own
	case word == "directory":
		complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case strings.Contains(f.Value.Type(), "|"):
		complete = cobra.FixedCompletions(strings.Split(f.Value.Type(), "|"), cobra.ShellCompDirectiveNoFileComp)
	}
	_ = c.RegisterFlagCompletionFunc(f.Name, complete) // an inherited one has it already
}

// named asks the server, briefly, and is silent when it does not answer: there is no
// place for a remark in a line that is being typed.
func (a *app) named(list lister, several bool) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		if len(args) > 0 && !several || a.configure(c) != nil {
			return nil, none
		}
		ctx, cancel := context.WithTimeout(c.Context(), offerLimit)
		defer cancel()
		all, err := list(ctx, a)
		if err != nil {
			return nil, none
		}
		var fit []string
		for _, name := range all {
			if strings.HasPrefix(name, start) {
				fit = append(fit, name)
			}
		}
		return fit, none
	}
}

func hostNames(ctx context.Context, a *app) ([]string, error) {
	s, err := a.now(ctx)
	var all []string
	for _, h := range s.GetHosts() {
		all = append(all, h.GetName()+"\t"+h.GetState())
	}
	return all, err
}

func userNames(ctx context.Context, a *app) ([]string, error) {
	r, err := a.users(ctx)
	return r.GetNames(), err
}

// tokenIDs are those of tokens that can be revoked.
func tokenIDs(ctx context.Context, a *app) ([]string, error) {
	tokens, err := a.tokens(ctx)
	var all []string
	for _, t := range tokens {
		if t.GetState() == tokenValid {
			all = append(all, strings.TrimSpace(t.GetId()+"\t"+usedOf(t)+" used, expires "+expiry(t)+" "+t.GetHost()))
		}
	}
	return all, err
}

func (a *app) tokens(ctx context.Context) ([]*pb.TokenInfo, error) {
	r, err := ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.ListTokensResponse, error) {
		return c.ListTokens(ctx, &pb.ListTokensRequest{})
	})
	return r.GetTokens(), err
}

// leaves are the commands below c that do something.
func leaves(c *cobra.Command) []*cobra.Command {
	if !c.HasSubCommands() {
		return []*cobra.Command{c}
	}
	var all []*cobra.Command
	for _, below := range c.Commands() {
		all = append(all, leaves(below)...)
	}
	return all
}
