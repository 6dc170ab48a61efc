package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes, the same for both programs; scripts rely on them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitBad         = 3 // answered, but the state is bad
	exitNotFound    = 4
	exitUnreachable = 5
)

// exitError is an error with the exit code it asks for.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// statusError is an error that came over gRPC, however wrapped.
type statusError interface {
	error
	GRPCStatus() *status.Status
}

// report prints err as one line on stderr and returns the exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return exitDone
	}
	code, text := explain(err)
	if text != "" {
		oneLine := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
		_, _ = fmt.Fprintf(stderr, "trustcast-agent: %s\n", oneLine) // nowhere left to report a failure
	}
	return code
}

// explain gives the exit code and the text for the operator. What the server
// says over gRPC is a complete sentence already, so its wrapping is dropped.
func explain(err error) (code int, text string) {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code, err.Error()
	}
	if s, ok := errors.AsType[statusError](err); ok {
		text = strings.ReplaceAll(err.Error(), s.Error(), s.GRPCStatus().Message())
		switch s.GRPCStatus().Code() {
		case codes.NotFound:
			return exitNotFound, text
		case codes.InvalidArgument:
			return exitUsage, text
		case codes.Unavailable:
			return exitUnreachable, text
		}
		return exitFailed, text
	}
	if errors.Is(err, context.Canceled) {
		return exitFailed, "interrupted"
	}
	return exitFailed, err.Error()
}
