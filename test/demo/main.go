// Command demo shows trustcast at work on one machine, without root and without
// Docker: a real server, five real agents in temporary directories, and pulls
// by a client that trusts only what an agent installed.
//
// `make demo` builds the programs and runs it. It leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// hosts is enough to see that they go their way one by one.
const hosts = 5

// limit ends a demo that hangs; a good one takes a few seconds.
const limit = 100 * time.Second

var errTooLong = fmt.Errorf("it took longer than %s", limit)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	s, err := newStage(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.clear()) }()
	for _, act := range []func(context.Context) error{
		s.startRegistry, s.pullWithoutCA, s.joinHosts, s.pushAndPull, s.rotate, s.pullAgain, s.summary,
	} {
		switch err := act(ctx); {
		case err == nil:
		case errors.Is(context.Cause(ctx), errTooLong):
			return s.explain(errTooLong)
		case ctx.Err() != nil:
			return errors.New("interrupted; everything it started is ended and removed")
		default:
			return s.explain(err)
		}
	}
	return nil
}
