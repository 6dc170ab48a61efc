//go:build linux

package fleet_test

import (
	"fmt"
	"net"
	"strings"
)

// network is a bridge with a namespace for the server and one for each host.
type network struct {
	run *run
}

const (
	bridgeAddr = 1  // of the bridge, in the namespace of the test
	serverAddr = 2  // of the server
	hostAddr   = 10 // plus the number of the host, from 1
)

// newNetwork makes the bridge and lets its traffic through: Docker sets the
// policy of FORWARD to DROP, with bridge netfilter on.
func newNetwork(r *run) (*network, error) {
	n := &network{run: r}
	bridge := r.name()
	return n, steps(
		"ip link add "+bridge+" type bridge",
		fmt.Sprintf("ip addr add %s/24 dev %s", r.addr(bridgeAddr), bridge),
		"ip link set "+bridge+" up",
		fmt.Sprintf("iptables -w -I FORWARD -i %s -o %s -j ACCEPT", bridge, bridge),
		fmt.Sprintf("iptables -w -I INPUT -i %s -j ACCEPT", bridge),
	)
}

func (n *network) namespace(name string) string { return n.run.name() + "-" + name }

// link is the bridge side of a namespace's cable.
func (n *network) link(name string) string { return n.run.name() + "-" + name }

// add makes a namespace with an address on the bridge. It has no route to
// anywhere else: a name that is not in its hosts file fails at once.
func (n *network) add(name, addr string) error {
	ns, link := n.namespace(name), n.link(name)
	return steps(
		"ip netns add "+ns,
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %s", link, ns),
		fmt.Sprintf("ip link set %s master %s up", link, n.run.name()),
		fmt.Sprintf("ip -n %s link set lo up", ns),
		fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", ns, addr),
		fmt.Sprintf("ip -n %s link set eth0 up", ns),
	)
}

// inside is the start of a command line that runs in a namespace.
func (n *network) inside(name string) string { return "nsenter --net=/run/netns/" + n.namespace(name) }

// redirect leads a namespace's new TCP connections to one address to another,
// until undo is called.
func (n *network) redirect(name, from, to string) (undo func() error, err error) {
	host, port, err := net.SplitHostPort(from)
	if err != nil {
		return nil, err
	}
	rule := func(verb string) error {
		return steps(fmt.Sprintf("%s iptables -w -t nat %s OUTPUT -p tcp -d %s --dport %s -j DNAT --to-destination %s", n.inside(name), verb, host, port, to))
	}
	return func() error { return rule("-D") }, rule("-I")
}

// setLink pulls or plugs a namespace's cable.
func (n *network) setLink(name string, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return steps("ip link set " + n.link(name) + " " + state)
}

// blockPort drops a port's TCP and UDP packets in a namespace, both ways.
func (n *network) blockPort(name, port string, block bool) error {
	verb := "-D"
	if block {
		verb = "-I"
	}
	var lines []string
	for _, proto := range []string{"tcp", "udp"} {
		for _, chain := range []string{"INPUT", "OUTPUT"} {
			for _, side := range []string{"--sport", "--dport"} {
				lines = append(lines, strings.Join([]string{
					n.inside(name), "iptables -w", verb, chain, "-p", proto, side, port, "-j DROP",
				}, " "))
			}
		}
	}
	return steps(lines...)
}

// steps runs commands without blanks in their arguments, up to the first that
// fails.
func steps(lines ...string) error {
	for _, line := range lines {
		fields := strings.Fields(line)
		if _, err := command(fields[0], fields[1:]...); err != nil {
			return err
		}
	}
	return nil
}
