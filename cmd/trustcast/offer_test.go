package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestOfferGivesUp: a server that takes the question and stays silent is not waited for
// by somebody who pressed Tab.
func TestOfferGivesUp(t *testing.T) {
	a := quiet()
	root := a.root()
	a.offer(root)
	a.dataDir = t.TempDir()
	if err := os.Mkdir(filepath.Join(a.dataDir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("unix", filepath.Join(a.dataDir, "state", "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	c, _, err := root.Find([]string{"host", "rm"})
	if err != nil {
		t.Fatal(err)
	}
	c.SetContext(t.Context())
	began := time.Now()
	offered, directive := c.ValidArgsFunction(c, nil, "")
	if len(offered) > 0 || directive != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("offered %v, %v", offered, directive)
	}
	if took := time.Since(began); took > callLimit/2 {
		t.Errorf("it took %s", took)
	}
	if _, err := a.tokens(deadline(t, time.Second)); err == nil {
		t.Error("the server is not as silent as it should be here")
	}
}

func deadline(t *testing.T, in time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), in)
	t.Cleanup(cancel)
	return ctx
}

// TestOfferKnowsAllCommands: each command that is asked about exists, and each flag with a
// few words is completed by them.
func TestOfferKnowsAllCommands(t *testing.T) {
	a := quiet()
	root := a.root()
	a.offer(root)
	for _, path := range [][]string{{"host", "ls"}, {"host", "show"}, {"host", "rm"}, {"user", "add"}, {"user", "rm"}, {"user", "ls"}, {"token", "rm"}} {
		if c, _, err := root.Find(path); err != nil || c.ValidArgsFunction == nil || c.CommandPath() == "trustcast" {
			t.Errorf("%v is not completed: %v", path, err)
		}
	}
	for _, c := range leaves(root) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if _, is := f.Value.(*choice); !is {
				return
			}
			complete, found := c.GetFlagCompletionFunc(f.Name)
			if !found {
				t.Errorf("%s --%s is not completed", c.CommandPath(), f.Name)
				return
			}
			if words, _ := complete(c, nil, ""); len(words) != len(f.Value.(*choice).allowed) {
				t.Errorf("%s --%s is completed by %v", c.CommandPath(), f.Name, words)
			}
		})
	}
}

// TestFilters: words and patterns are taken or refused, and fit what they should.
func TestFilters(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		name     string
		fits     bool
	}{
		{nil, "web-1", true},
		{[]string{"web-1"}, "web-1", true},
		{[]string{"web-1"}, "web-10", false},
		{[]string{"web-*"}, "web-10", true},
		{[]string{"db-*", "web-[12]"}, "web-2", true},
		{[]string{"db-*", "web-[12]"}, "web-3", false},
		{[]string{"WEB-*"}, "web-3", false},
	} {
		if err := patterns(nil, c.patterns); err != nil {
			t.Error(err)
		}
		if got := alike(c.patterns, c.name); got != c.fits {
			t.Errorf("%v fits %s: %v", c.patterns, c.name, got)
		}
	}
	for _, bad := range []string{"", "[", "web-[1", `web\`} {
		if patterns(nil, []string{bad}) == nil {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
	states := choices{allowed: hostStates}
	if err := states.Set("gone,failed"); err != nil || !states.fit("failed") || states.fit("trusted") {
		t.Errorf("%v: %v", states.values, err)
	}
	for _, bad := range []string{"", "gone,", "Gone", "gone, failed"} {
		if (&choices{allowed: hostStates}).Set(bad) == nil {
			t.Errorf("%q is taken for states", bad)
		}
	}
}
