//go:build faults

package edge

import (
	"os"
	"slices"
	"strings"
)

// passWrongName lets a staged chain with a wrong name through on request, so
// that a test sees the hosts refuse it and not the edge.
func passWrongName(protocol string) bool {
	return protocol == NextProtocol && slices.Contains(strings.Split(os.Getenv("TRUSTCAST_FAULTS"), ","), "wrong-name")
}
