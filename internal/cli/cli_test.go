package cli_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trustcast/trustcast/internal/cli"
)

func TestReport(t *testing.T) {
	gone := status.Error(codes.NotFound, "no host is called x; see host ls")
	for _, test := range []struct {
		err  error
		code int
		line string
	}{
		{nil, 0, ""},
		{errors.New("it broke"), 1, "p: it broke\n"},
		{errors.Join(errors.New("a"), errors.New("b")), 1, "p: a; b\n"},
		{cli.Errorf(cli.Bad, "bad"), 3, "p: bad\n"},
		{fmt.Errorf("outer: %w", cli.Errorf(cli.Usage, "inner")), 2, "p: outer: inner\n"},
		{cli.Silent(cli.Usage), 2, ""},
		{gone, 4, "p: no host is called x; see host ls\n"},
		{fmt.Errorf("remove: %w", gone), 4, "p: remove: no host is called x; see host ls\n"},
		{status.Error(codes.InvalidArgument, "no"), 2, "p: no\n"},
		{status.Error(codes.Unavailable, "away"), 5, "p: away\n"},
		{status.Error(codes.FailedPrecondition, "not now"), 1, "p: not now\n"},
		{fmt.Errorf("x: %w", context.Canceled), 1, "p: interrupted\n"},
	} {
		var b strings.Builder
		if code := cli.Report("p", test.err, &b); code != test.code || b.String() != test.line {
			t.Errorf("Report(%v) = %d, %q; want %d, %q", test.err, code, b.String(), test.code, test.line)
		}
	}
}

func TestTypos(t *testing.T) {
	known := []string{"domain", "data-dir", "token-file", "host"}
	environ := []string{
		"TRUSTCAST_DOMIAN=x", "TRUSTCAST_DATADIR=x", "TRUSTCAST_data_dir=x",
		"TRUSTCAST_DOMAIN=x", "TRUSTCAST_HOST=x", "TRUSTCAST_TOKEN_FILE=x", "TRUSTCAST_SERVICE_PORT=1", "TRUSTCAST_PORT=1", "DOMIAN=x", "TRUSTCAST_=x",
	}
	got := cli.Typos(environ, known, []string{"domain", "data-dir"})
	var meant []string
	for _, line := range got {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "environment variable "), " ")
		meant = append(meant, name+rest[strings.LastIndex(rest, " "):])
	}
	const want = "TRUSTCAST_DOMIAN TRUSTCAST_DOMAIN?; TRUSTCAST_DATADIR TRUSTCAST_DATA_DIR?; TRUSTCAST_data_dir TRUSTCAST_DATA_DIR?"
	if strings.Join(meant, "; ") != want {
		t.Errorf("got %q\nwant %s", got, want)
	}
}
