package certs

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// DefaultPort is the registry's port when a name has none; the Docker
// registry's customary one.
const DefaultPort = 5000

// Name is a registry's name as it stands in image names: a host and a port.
type Name struct {
	// Host is a lower-case DNS name or an IPv4 address.
	Host string
	// Port is 1 to 65535.
	Port int
}

var hostLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseName reads HOST[:PORT]; defaultPort is taken when there is none. Names
// become directories on hosts and names in certificates, so anything but a
// plain host and port is refused.
func ParseName(s string, defaultPort int) (Name, error) {
	if strings.Contains(s, "://") {
		return Name{}, fmt.Errorf("name %q has a scheme: give HOST[:PORT] alone, as it stands in image names", s)
	}
	if strings.ContainsAny(s, "/\\") {
		return Name{}, fmt.Errorf("name %q has a path: give HOST[:PORT] alone, without the image's path", s)
	}
	if strings.Count(s, ":") > 1 || strings.ContainsAny(s, "[]") {
		return Name{}, fmt.Errorf("name %q is an IPv6 address: image names cannot carry one; give a DNS name", s)
	}
	host, portText, hasPort := strings.Cut(s, ":")
	n := Name{Host: host, Port: defaultPort}
	if hasPort {
		port, err := strconv.Atoi(portText)
		if err != nil || port < 1 || port > 65535 || strconv.Itoa(port) != portText {
			return Name{}, fmt.Errorf("name %q: port %q is out of range: give a number from 1 to 65535", s, portText)
		}
		n.Port = port
	}
	return n, n.checkHost()
}

func (n Name) checkHost() error {
	if n.Host == "" {
		return fmt.Errorf("the name is empty: give HOST[:PORT], for example registry.example.com:5000")
	}
	if n.IP().IsValid() {
		return nil
	}
	if n.Host != strings.ToLower(n.Host) {
		return fmt.Errorf("name %q has upper-case letters: image names are lower-case; give %q", n.Host, strings.ToLower(n.Host))
	}
	if len(n.Host) > 253 {
		return fmt.Errorf("name %.30q… has %d characters: DNS allows 253", n.Host, len(n.Host))
	}
	labels := strings.Split(n.Host, ".")
	for _, label := range labels {
		if !hostLabel.MatchString(label) {
			return fmt.Errorf("name %q is no DNS name (part %q): use letters, digits and dashes between dots", n.Host, label)
		}
	}
	// Docker takes the first part of an image name for a registry only when it
	// has a dot or a port or is localhost; ours always has a port.
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return fmt.Errorf("name %q ends in a number but is no IPv4 address", n.Host)
	}
	return nil
}

// IP returns the address when the host is one, else the zero value.
func (n Name) IP() netip.Addr {
	a, err := netip.ParseAddr(n.Host)
	if err != nil || !a.Is4() {
		return netip.Addr{}
	}
	return a
}

// String returns host:port.
func (n Name) String() string { return n.Host + ":" + strconv.Itoa(n.Port) }

// Dirs returns the directory names under certs.d that clients look into for
// this name: host:port, and for port 443 also the bare host, because an image
// name may then stand without a port.
func (n Name) Dirs() []string {
	if n.Port == 443 {
		return []string{n.String(), n.Host}
	}
	return []string{n.String()}
}
