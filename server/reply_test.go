package server

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/registry"
)

// TestReplyTellsTheReason: what a part says counts more than the end of a context that
// it wraps, and the text stays.
func TestReplyTellsTheReason(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{fmt.Errorf("%w: a push takes longer (%w)", registry.ErrNotNow, context.DeadlineExceeded), codes.FailedPrecondition},
		{fmt.Errorf("%w: later (%w)", authority.ErrNotNow, context.Canceled), codes.FailedPrecondition},
		{fmt.Errorf("wait for requests: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{fmt.Errorf("wait for requests: %w", context.Canceled), codes.Canceled},
		{errors.New("another"), codes.Internal},
	} {
		got := status.Convert(reply(c.err))
		if got.Code() != c.want || got.Message() != c.err.Error() {
			t.Errorf("%v: %s, %q", c.err, got.Code(), got.Message())
		}
	}
}
