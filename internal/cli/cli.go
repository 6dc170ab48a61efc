// Package cli is what the commands of both programs have in common: exit codes,
// one-line errors, names of environment variables, JSON.
//
// It knows no command and decides nothing about the program's state.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/internal/near"
)

// Exit codes; scripts rely on them.
const (
	Done        = 0
	Failed      = 1
	Usage       = 2
	Bad         = 3 // answered, but the state is bad
	NotFound    = 4
	Unreachable = 5
)

// exitError is an error with the exit code it asks for.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// Errorf is fmt.Errorf with the exit code that the error asks for.
func Errorf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// Silent asks for an exit code without a line, after help was shown.
func Silent(code int) error { return &exitError{code, errors.New("")} }

// statusError is an error that came over gRPC.
type statusError interface {
	error
	GRPCStatus() *status.Status
}

// StatusOf returns the status of an error that came over gRPC, however wrapped;
// nil for any other.
func StatusOf(err error) *status.Status {
	if e, ok := errors.AsType[statusError](err); ok {
		return e.GRPCStatus()
	}
	return nil
}

// Report prints err as one line on stderr and returns the exit code.
func Report(program string, err error, stderr io.Writer) int {
	if err == nil {
		return Done
	}
	code, text := explain(err)
	if text != "" {
		_, _ = fmt.Fprintf(stderr, "%s: %s\n", program, oneLine(text)) // nowhere left to report a failure
	}
	return code
}

// Code is the exit code that Report returns for err.
func Code(err error) int {
	if err == nil {
		return Done
	}
	code, _ := explain(err)
	return code
}

// explain gives the exit code and the text for the operator. What the server
// says over gRPC is a complete sentence already, so its wrapping is dropped.
func explain(err error) (code int, text string) {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code, err.Error()
	}
	if e, ok := errors.AsType[statusError](err); ok {
		text = strings.ReplaceAll(err.Error(), e.Error(), e.GRPCStatus().Message())
		return codeOf(e.GRPCStatus().Code()), text
	}
	if errors.Is(err, context.Canceled) {
		return Failed, "interrupted"
	}
	return Failed, err.Error()
}

func codeOf(c codes.Code) int {
	switch c {
	case codes.NotFound:
		return NotFound
	case codes.InvalidArgument:
		return Usage
	case codes.Unavailable:
		return Unreachable
	default:
		return Failed
	}
}

// oneLine keeps an error on one line, whatever it wraps.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Variable is the environment variable of a flag: TRUSTCAST_DATA_DIR for
// data-dir.
func Variable(flag string) string {
	return "TRUSTCAST_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Version is what the command version of both programs prints as JSON.
type Version struct {
	Version string `json:"version"`
	// Go is the version of the compiler.
	Go string `json:"go"`
	// Platform is like linux/amd64.
	Platform string `json:"platform"`
}

// JSON writes v, indented.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Instant is a time in JSON: RFC 3339 in UTC to the millisecond, null when zero.
func Instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

// Day is a time for people, empty when zero.
func Day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04 MST")
}

// Short is the recognisable part of a fingerprint.
func Short(fingerprint string) string { return fingerprint[:min(16, len(fingerprint))] }

// Typos says which variables of environ are called nearly like a flag's and are none;
// known are the flags of all commands, and wanted are those that are compared. Others
// may be another program's, and nothing is said of them.
func Typos(environ, known, wanted []string) []string {
	var lines []string
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		rest, ours := strings.CutPrefix(name, "TRUSTCAST_")
		flag := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		if !ours || slices.Contains(known, flag) && name == Variable(flag) {
			continue
		}
		if meant := near.Word(flag, wanted); meant != "" {
			lines = append(lines, fmt.Sprintf("environment variable %s is passed over: there is no such setting; did you mean %s?", name, Variable(meant)))
		}
	}
	return lines
}
