package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrUnreachable says that the server did not answer.
var ErrUnreachable = errors.New("the server is unreachable")

// away: no answer came, neither a good one nor a bad one.
func away(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// strange: something answered, and TLS with it failed, which the error explains.
func strange(err error) bool {
	return strings.Contains(status.Convert(err).Message(), "authentication handshake failed")
}

// wentAway: nobody is there, or who was there let go. A handshake that was cut off says
// no more than that, and one that nobody answered may wait in a socket that systemd
// holds; one that failed otherwise is not mended by time.
func wentAway(err error) bool {
	why := cause(err)
	return away(err) && (!strange(err) || why == "EOF" || why == context.DeadlineExceeded.Error() || strings.HasSuffix(why, "connection reset by peer"))
}

// unreachable is an error of this text, and ErrUnreachable when err is that no answer came.
func unreachable(err error, format string, args ...any) error {
	text := fmt.Errorf(format, args...)
	if away(err) && !strange(err) {
		return fmt.Errorf("%w: %w", ErrUnreachable, text)
	}
	return text
}

// joinError turns a failed enrolment into a sentence with the next step.
func joinError(server string, err, refused error) error {
	if refused != nil {
		return refused
	}
	s := status.Convert(err)
	if otherProtocol(s.Message()) {
		return fmt.Errorf("%w: what answers at %s does not speak with agents (%s): it may be the registry's port; the server's port for agents is usually 7443", ErrUnreachable, server, cause(err))
	}
	if away(err) {
		return fmt.Errorf("%w: %s does not answer (%s): is the server running, is the port open from here, is the address right?", ErrUnreachable, server, cause(err))
	}
	return fmt.Errorf("%s refused: %s", server, s.Message())
}

// cause is what an error of a call says without gRPC's words for where it happened.
func cause(err error) string {
	text := status.Convert(err).Message()
	if _, quoted, ok := strings.Cut(text, `desc = "`); ok {
		text = strings.TrimSuffix(quoted, `"`)
	}
	for _, where := range []string{"transport: Error while dialing: ", "transport: authentication handshake failed: ", "dial tcp: "} {
		text = strings.TrimPrefix(text, where)
	}
	if _, why, ok := strings.Cut(text, ": connect: "); ok {
		return why // the address is said beside it
	}
	return text
}

// otherProtocol: TLS was answered by something that is no gRPC server, in the words of
// a server that knows ALPN and of one that does not.
func otherProtocol(message string) bool {
	return strings.Contains(message, "no application protocol") || strings.Contains(message, "missing selected ALPN property")
}
