// Command trustcast runs a Docker registry whose CA reaches every host, and
// talks to a running one.
//
// `trustcast server` is the server itself; every other command but init is a
// call to its AdminService on the Unix socket in the data directory. One file
// is one noun; what the commands do lives in the server.
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Report("trustcast", run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr), os.Stderr))
}

// run does what args say. The error says what failed, why and what to do next;
// cli.Report turns it into a line and an exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	return newApp(getenv, stdin, stdout, stderr).execute(ctx, args)
}
