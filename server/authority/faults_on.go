//go:build faults

package authority

import (
	"os"
	"slices"
	"strings"
)

// faulty says whether TRUSTCAST_FAULTS names a fault. Only test binaries are
// built with it: they show that each safeguard alone carries the promise.
func faulty(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("TRUSTCAST_FAULTS"), ","), name)
}

// leafHost is the name in a new leaf; wrong on request.
func (maker) leafHost(host string) string {
	if faulty("wrong-name") {
		return "wrong." + host
	}
	return host
}
