package main

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choices is a flag with some of a fixed set of words, repeated or with commas between
// them; none of them means any.
type choices struct{ values, allowed []string }

func (c *choices) String() string { return strings.Join(c.values, ",") }
func (c *choices) Type() string   { return strings.Join(c.allowed, "|") }

// Set adds words, each one of those that are allowed.
func (c *choices) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		if !slices.Contains(c.allowed, word) {
			return fmt.Errorf("%q is none of %s", word, strings.Join(c.allowed, ", "))
		}
		c.values = append(c.values, word)
	}
	return nil
}

func (c *choices) fit(word string) bool {
	return len(c.values) == 0 || slices.Contains(c.values, word)
}

// patterns takes any number of arguments with *, ? and [] in them.
func patterns(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if _, err := path.Match(arg, ""); err != nil || arg == "" {
			return fmt.Errorf("%q is no name and no pattern; write it like web-* or web-[123]", arg)
		}
	}
	return nil
}

// alike says whether a name fits one of the patterns, or there are none.
func alike(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		fits, _ := path.Match(pattern, name) // an argument was looked at before
		return fits
	})
}

// printNames is what -q prints: for a loop in a shell.
func printNames[T any](w io.Writer, all []T, name func(T) string) error {
	for _, one := range all {
		if _, err := fmt.Fprintln(w, name(one)); err != nil {
			return err
		}
	}
	return nil
}
