package server

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/internal/gossip"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
)

// wantedCache keeps the message for the revisions of rotation and identity, so
// that a fleet costs one.
type wantedCache struct {
	mu                 sync.Mutex
	revision, identity uint64
	message            *pb.SyncResponse
}

// announce tells the fleet about each change of the rotation record once the
// edge serves it: down the open streams at once, and by gossip as a hint for
// everybody else. It also
// forgets hosts that were silent for very long.
func (n *node) announce(ctx context.Context) error {
	forget := time.NewTicker(24 * time.Hour)
	defer forget.Stop()
	for {
		n.fleet.WakeAll()
		n.hint()
		if err := n.exportCertificates(); err != nil {
			n.log.Error("certs/ is not up to date; it is a copy for people, hosts do not need it", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
		case <-forget.C:
			n.forgetSilent()
		}
	}
}

// hint puts the newest generation and revision into the server's gossip
// metadata.
func (n *node) hint() {
	if n.gossip == nil {
		return
	}
	w := n.authority.Wanted()
	if err := n.gossip.SetMeta(gossip.Hint{Generation: w.Bundle.Generation, Revision: w.Revision}.Encode()); err != nil {
		n.log.Warn("gossip hint not sent; streams and polls go on", "err", err)
	}
}

// exportCertificates writes the derived copies in certs/, as a plain registry's
// volume has them.
func (n *node) exportCertificates() error {
	w := n.authority.Wanted()
	if w.Adopted != "" { // the operator's own files, and the way back to the old registry
		return nil
	}
	if err := export(n.layout.caFile(), w.Bundle.PEM()); err != nil {
		return err
	}
	for _, leaf := range w.Leaves {
		if leaf.Next || leaf.Host != n.names[0].Host {
			continue
		}
		cert, err := certs.ParseCertificate(leaf.Cert)
		if err != nil {
			return err
		}
		return export(n.layout.domainFile(), certs.EncodePEM(cert))
	}
	return nil
}

// export writes a copy, and clears away what a killed write of it left.
func export(path string, pem []byte) error {
	if err := durable.Strays(filepath.Dir(path), filepath.Base(path)); err != nil {
		return err
	}
	return durable.WriteFile(path, pem, 0o644)
}

// forgetSilent drops hosts that gave no sign for fleet.ForgetAfter, and removed
// ones that long after their identity's end; not by a clock that is wrong.
func (n *node) forgetSilent() {
	if _, paused := n.clockOff(); paused {
		return
	}
	for _, h := range n.identity.Removed() {
		if time.Since(h.Ends) < identity.RenewGrace {
			continue
		}
		if err := n.identity.Forget(h.ID); err != nil {
			n.log.Error("removed host not forgotten", "host", h.Name, "err", err)
		}
	}
	for _, h := range n.identity.Hosts() {
		s := n.fleet.State(h.ID)
		last := latest(s.LastSeen, h.Enrolled)
		if s.Present || time.Since(last) < fleet.ForgetAfter {
			continue
		}
		n.log.Warn("host forgotten: it was silent for 90 days; it may join again with a new token", "host", h.Name)
		if err := n.identity.Forget(h.ID); err != nil {
			n.log.Error("host not forgotten", "host", h.Name, "err", err)
			continue
		}
		if err := n.fleet.Drop(h.ID); err != nil {
			n.log.Error("host not forgotten", "host", h.Name, "err", err)
		}
	}
}

// wantedMessage is what every host should have, as it goes down each stream.
func (n *node) wantedMessage() *pb.SyncResponse {
	ids := n.identity.Revision() // first: what is read below may only be newer
	w := n.authority.Wanted()
	c := &n.wanted
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.message != nil && c.revision == w.Revision && c.identity == ids {
		return c.message
	}
	m := &pb.Wanted{
		Revision: w.Revision, Rotation: w.Number,
		Generation: w.Bundle.Generation, Bundle: w.Bundle.DER(),
		Tick: durationpb.New(n.cfg.Tick), Window: durationpb.New(n.window()),
		RegistryAddress: n.registryAddress(),
		Gossip:          n.gossipConfig(),
		ControlCas:      n.identity.ControlCAs(),
	}
	for _, name := range n.names {
		m.Names = append(m.Names, name.String())
	}
	for _, l := range w.Leaves {
		m.Leaves = append(m.Leaves, &pb.Leaf{Name: l.Host, Certificate: l.Cert, Next: l.Next})
	}
	c.revision, c.identity, c.message = w.Revision, ids, &pb.SyncResponse{Wanted: m}
	return c.message
}

// window spreads fetches that one event causes in many agents: none up to a
// thousand, then 0.6 ms a host (measured: a cold fetch costs the server 0.83 ms
// on one core).
func (n *node) window() time.Duration {
	if size := n.fleet.Size(); size > 1000 {
		return time.Duration(size) * 600 * time.Microsecond
	}
	return 0
}

// reports is the fleet as the authority sees it.
func (n *node) reports() []authority.HostReport {
	hosts := n.identity.Hosts()
	out := make([]authority.HostReport, len(hosts))
	for i, h := range hosts {
		out[i] = n.report(h)
	}
	return out
}

// reportOf is one host as the authority sees it; false: it is not of the fleet.
func (n *node) reportOf(id string) (authority.HostReport, bool) {
	h, err := n.identity.Host(id)
	if err != nil {
		return authority.HostReport{}, false
	}
	return n.report(h), true
}

func (n *node) report(h identity.Host) authority.HostReport {
	s := n.fleet.State(h.ID)
	return authority.HostReport{
		ID: h.ID, Name: h.Name, Covered: s.Covered, Present: s.Present, Connected: s.Connected,
		Evidence: s.Evidence, Received: s.Received, Generation: s.Generation,
	}
}

// heardOf has the authority look at a host that reported.
func (n *node) heardOf(id string) {
	if n.authority != nil { // nil only while the server opens
		n.authority.Heard(id)
	}
	n.reported.beat()
}

// nudge has the authority look at the whole fleet again.
func (n *node) nudge() {
	if n.authority != nil {
		n.authority.Nudge()
	}
	n.reported.beat()
}

// startGossip becomes a member. A port that is taken is a warning: streams and
// polls carry everything.
func (n *node) startGossip() {
	if n.cfg.GossipListen == off {
		return
	}
	w := n.authority.Wanted()
	m, err := gossip.Start(gossip.Config{
		Name: gossip.ServerName, Listen: n.cfg.GossipListen, Keys: n.identity.Ring().Keys,
		Meta: gossip.Hint{Generation: w.Bundle.Generation, Revision: w.Revision}.Encode(),
		// It keeps hosts present and releases nobody: no step can follow from it.
		Changed: n.reported.beat, ProbeEvery: n.cfg.GossipEvery,
		Transport: n.cfg.GossipTransport, Log: n.log,
	})
	if err != nil {
		n.log.Warn("gossip is off: hosts are reached by streams and polls alone", "err", err)
		return
	}
	n.gossip = m
}

func (n *node) gossipSees(id string) bool { return n.gossip != nil && n.gossip.Alive(id) }

func (n *node) gossipConfig() *pb.Gossip {
	ring := n.identity.Ring()
	g := &pb.Gossip{Keys: ring.Keys, Version: ring.Version}
	if n.gossip != nil {
		g.Peers = []string{net.JoinHostPort(n.advertiseHost(), portOf(n.gossip.Address()))}
	}
	return g
}

// advertiseHost is the host that agents dial.
func (n *node) advertiseHost() string {
	if n.cfg.Advertise == "" {
		return n.names[0].Host
	}
	if host, _, err := net.SplitHostPort(n.cfg.Advertise); err == nil {
		return host
	}
	return n.cfg.Advertise
}

// joinAddress is what agents join: the advertised host and port, or the gRPC
// port that is open.
func (n *node) joinAddress() string {
	if _, port, err := net.SplitHostPort(n.cfg.Advertise); err == nil {
		return net.JoinHostPort(n.advertiseHost(), port)
	}
	return net.JoinHostPort(n.advertiseHost(), portOf(n.listen.grpc.Addr().String()))
}

// registryAddress is where the edge can be dialled when a name of the registry
// does not resolve.
func (n *node) registryAddress() string {
	return net.JoinHostPort(n.advertiseHost(), portOf(n.listen.registry.Addr().String()))
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return strconv.Itoa(certs.DefaultPort)
	}
	return port
}
