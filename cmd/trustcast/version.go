package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
)

// version is set by the linker.
var version = "dev"

func (a *app) version() *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print this program's version",
		Example: "  trustcast version -o json",
		Args:    names(),
	}
	out := output(c.Flags())
	c.RunE = func(*cobra.Command, []string) error {
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if out.json() {
			return cli.JSON(a.stdout, map[string]string{"version": version, "go": runtime.Version(), "platform": platform})
		}
		_, err := fmt.Fprintf(a.stdout, "trustcast %s (%s, %s)\n", version, runtime.Version(), platform)
		return err
	}
	return c
}
