package server

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/edge"
)

// strangerLife is how long an address that was not seen again is listed. Jobs
// that run once a week still show; what was switched off goes.
const strangerLife = 7 * 24 * time.Hour

// strangers lists who uses the registry, or refuses its certificate, and is no
// enrolled host, the latest first: a rotation may break them. Not listed is
//
//   - the address of any host's current or last stream, also one from before a
//     restart. A host that moved is known by its new address, and what was seen
//     of the old one until then is forgotten;
//   - an address of this machine, loopback among them, when any of its
//     addresses is a host's: an engine here may use them all. Else nobody but a
//     client on this machine without an agent explains it, so it is listed.
//
// Only addresses are compared. A machine that shares one with a host, behind a
// NAT or a load balancer, is never listed; a host that pulls from another
// address than its agent's stream comes from is listed without need. Nothing
// outlives a restart of the server: the list fills again as clients come.
func (n *node) strangers() []*pb.Stranger {
	known := explained(n.hostAddresses(), ownAddresses())
	found := n.edge.Clients(time.Now().Add(-strangerLife))
	found = slices.DeleteFunc(found, func(c edge.Client) bool { return known[c.Address] })
	slices.SortFunc(found, func(a, b edge.Client) int {
		return cmp.Or(b.LastSeen.Compare(a.LastSeen), a.Address.Compare(b.Address))
	})
	out := make([]*pb.Stranger, len(found))
	for i, c := range found {
		out[i] = &pb.Stranger{
			Address: c.Address.String(), LastSeen: timestamppb.New(c.LastSeen),
			Requests: c.Requests, Refusals: c.Refusals,
		}
	}
	return out
}

// hostAddresses are those of every host's current or last stream.
func (n *node) hostAddresses() []netip.Addr {
	var out []netip.Addr
	for _, h := range n.identity.Hosts() {
		if address, err := netip.ParseAddr(n.fleet.State(h.ID).Address); err == nil {
			out = append(out, address)
		}
	}
	return out
}

// explained are the addresses of hosts, and all of this machine's own when one
// of them is a host's.
func explained(hosts, own []netip.Addr) map[netip.Addr]bool {
	known := map[netip.Addr]bool{}
	for _, address := range hosts {
		known[address] = true
	}
	if slices.ContainsFunc(own, func(a netip.Addr) bool { return known[a] }) {
		for _, address := range own {
			known[address] = true
		}
	}
	return known
}

// ownAddresses are those of this machine's interfaces. Without them, which
// nobody has seen yet, every address stands for itself.
func ownAddresses() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range nets {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own
}

// registerStrangers exports how many there are.
func (n *node) registerStrangers() error {
	err := n.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trustcast_strangers",
		Help: "Addresses that used the registry or refused its certificate within 7 days and belong to no enrolled host.",
	}, func() float64 { return float64(len(n.strangers())) }))
	if err != nil {
		return fmt.Errorf("export the number of strangers: %w", err)
	}
	return nil
}
