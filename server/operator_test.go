package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// called is a stream of a caller.
type called struct {
	grpc.ServerStream
	ctx context.Context
}

func (c called) Context() context.Context { return c.ctx }

// TestWhoEndedACall: a caller is told that it was interrupted only if it went away;
// else this server ends.
func TestWhoEndedACall(t *testing.T) {
	n := &node{log: slog.New(slog.DiscardHandler)}
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, c := range []struct {
		what   string
		caller context.Context
		err    error
		want   codes.Code
	}{
		{"the server ends", t.Context(), context.Canceled, codes.Unavailable},
		{"the caller is gone", gone, context.Canceled, codes.Canceled},
		{"another error", t.Context(), errors.New("the disk is full"), codes.Internal},
		{"no error", t.Context(), nil, codes.OK},
	} {
		_, err := n.logOperator(c.caller, nil, nil, func(context.Context, any) (any, error) { return nil, reply(c.err) })
		if got := status.Code(err); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		err = n.logOperatorStream(nil, called{ctx: c.caller}, nil, func(any, grpc.ServerStream) error { return reply(c.err) })
		if got := status.Code(err); got != c.want {
			t.Errorf("%s, with many answers: %s, want %s", c.what, got, c.want)
		}
	}
}
