// Command trustcast-agent brings a registry's CA to one Docker host and keeps
// it there.
//
// It uses the standard library's flags and nothing of the registry: it runs on
// every machine of a fleet, so it stays small.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/trustcast/trustcast/internal/cli"
)

func main() {
	lean(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Report("trustcast-agent", run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr), os.Stderr))
}

// run does what args say. The error says what failed, why and what to do next;
// cli.Report turns it into a line and an exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	return (&app{getenv: getenv, environ: os.Environ, stdin: stdin, stdout: stdout, stderr: stderr}).execute(ctx, args)
}
