package cli_test

import (
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trustcast/trustcast/internal/plain"
)

// oldregistry DIR HOST selfsigned|company|nameless [HTPASSWD]: the data of a plain
// registry, of the kind of certificate.
func oldRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: oldregistry DIR HOST selfsigned|company|nameless [HTPASSWD]")
	}
	var p plain.Pair
	var err error
	switch args[2] {
	case "selfsigned":
		p, err = plain.SelfSigned(plain.Options{}, args[1])
	case "nameless":
		p, err = plain.SelfSigned(plain.Options{CommonNameOnly: true}, args[1])
	default:
		p, err = plain.Company(plain.Options{}, true, args[1])
	}
	ts.Check(err)
	htpasswd := ""
	if len(args) == 4 {
		data, err := os.ReadFile(ts.MkAbs(args[3]))
		ts.Check(err)
		htpasswd = string(data)
	}
	ts.Check(plain.Write(ts.MkAbs(args[0]), p, htpasswd, "team/app"))
}
