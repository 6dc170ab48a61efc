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
	out := output(c.Flags(), cli.Version{})
	c.RunE = func(*cobra.Command, []string) error {
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if out.json() {
			return cli.JSON(a.stdout, cli.Version{Version: version, Go: runtime.Version(), Platform: platform})
		}
		_, err := fmt.Fprintf(a.stdout, "trustcast %s (%s, %s)\n", version, runtime.Version(), platform)
		return err
	}
	return c
}
