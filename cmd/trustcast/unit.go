package main

import (
	"net"
	"os"
)

// unitFiles are where the server's systemd unit may be: from the Debian package, or from
// an administrator. Variable for tests.
var unitFiles = []string{
	"/lib/systemd/system/trustcast.service", "/usr/lib/systemd/system/trustcast.service",
	"/usr/local/lib/systemd/system/trustcast.service", "/etc/systemd/system/trustcast.service",
}

// socketPort is the port of trustcast-registry.socket as it is shipped.
const socketPort = "5000"

// hasUnit says whether systemd runs the server of a data directory: its unit is there and
// has that directory.
func hasUnit(dir string) bool {
	if dir != defaultDataDir {
		return false
	}
	for _, file := range unitFiles {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

// startLine is how the server of a data directory is started on this machine.
func startLine(dir string) string {
	if hasUnit(dir) {
		return "systemctl start trustcast"
	}
	return "trustcast server"
}

// startHint is startLine with the data directory.
func (a *app) startHint() string {
	if hasUnit(a.dataDir) {
		return startLine(a.dataDir)
	}
	return a.hint("server")
}

// wrongSocket is the port of a domain that the unit's socket does not have; "" when all
// is well.
func wrongSocket(dir, domain string) string {
	_, port, err := net.SplitHostPort(domain)
	if err != nil || port == socketPort || !hasUnit(dir) {
		return ""
	}
	return port
}
