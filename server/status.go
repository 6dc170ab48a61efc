package server

import (
	"crypto/x509"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
)

// status gathers what the parts know at one moment.
func (n *node) status() (*pb.Status, error) {
	state, err := n.authority.State()
	if err != nil {
		return nil, err
	}
	s := &pb.Status{
		Version: n.cfg.Version, FleetId: n.identity.FleetID(),
		Domain: n.names[0].String(), Aliases: n.site.Aliases,
		Started: timestamppb.New(n.started), Time: timestamppb.Now(),
		Generation: state.Bundle.Generation, Fingerprint: string(state.Bundle.Fingerprint()),
		Serving: &pb.Serving{
			Issuer: state.Issuer.Subject.CommonName, IssuerFingerprint: string(certs.FingerprintOf(state.Issuer)),
			CaNotAfter: timestamppb.New(state.Issuer.NotAfter), LeafNotAfter: timestamppb.New(state.LeafEnds),
			Predecessors: clampInt32(state.Predecessors),
		},
		RegistryAddress: n.listen.registry.Addr().String(),
		GrpcAddress:     n.listen.grpc.Addr().String(),
	}
	if n.gossip != nil {
		s.GossipAddress = n.gossip.Address()
	}
	hosts := n.identity.Hosts()
	s.Rotation = rotationStatus(state, hosts)
	verdicts := n.authority.Verdicts()
	for _, h := range hosts {
		s.Hosts = append(s.Hosts, hostStatus(h, n.fleet.State(h.ID), verdicts[h.ID]))
	}
	s.Warnings = n.warnings(s)
	return s, nil
}

func rotationStatus(state authority.State, hosts []identity.Host) *pb.Rotation {
	r := state.Rotation
	out := &pb.Rotation{Phase: string(r.Phase), Number: r.Number, Rollback: r.Rollback}
	if r.Phase == authority.Idle {
		return out
	}
	out.Started, out.Deadline = timeOrNil(r.Started), timeOrNil(r.Deadline)
	if state.Other != nil {
		out.Other = state.Other.Subject.CommonName
	}
	for _, w := range state.Waiting {
		out.WaitingFor = append(out.WaitingFor, &pb.WaitingFor{Host: w.Host, Reason: w.Reason, Advice: w.Advice})
	}
	name := map[string]string{}
	for _, h := range hosts {
		name[h.ID] = h.Name
	}
	for _, id := range r.Skipped {
		if name[id] != "" {
			out.Skipped = append(out.Skipped, name[id])
		}
	}
	return out
}

func hostStatus(h identity.Host, s fleet.State, v authority.Verdict) *pb.Host {
	out := &pb.Host{
		Id: h.ID, Name: h.Name, State: stateOf(s, v),
		Covered: s.Covered, Present: s.Present, Connected: s.Connected,
		Gossip: s.Details.Gossip, Version: s.Details.Version, Address: s.Details.Address,
		Enrolled: timestamppb.New(h.Enrolled), IdentityNotAfter: timestamppb.New(h.Ends),
		LastSeen: timeOrNil(latest(s.LastSign, s.LastSeen)),
	}
	if e := s.Evidence; e != nil {
		out.Generation, out.Fingerprint = e.Generation, string(e.Fingerprint)
		out.Live, out.Probe = string(e.Live), string(e.Probe)
		out.Problem = e.Problem
	}
	if out.Problem == "" && out.State != "trusted" {
		out.Problem = v.Lack
	}
	return out
}

// stateOf puts a host into one word.
func stateOf(s fleet.State, v authority.Verdict) string {
	switch {
	case !s.Present:
		return "gone"
	case v.Complete:
		return "trusted"
	case s.Evidence == nil:
		return "pending"
	case v.Refused:
		return "refused"
	case s.Evidence.Problem != "":
		return "failed"
	default:
		return "pending"
	}
}

// warnBefore is when the end of a certificate is worth a line: half of what is
// left after its renewal was due, for the lives of DESIGN §6.
const warnBefore = 30 * 24 * time.Hour

// warnings are things that an operator should do something about.
func (n *node) warnings(s *pb.Status) []string {
	var out []string
	if len(n.users.Names()) == 0 {
		out = append(out, "the registry has no users, every request gets 401: add one with `trustcast user add NAME`")
	}
	if n.cfg.GossipListen != off && n.gossip == nil {
		out = append(out, "gossip is off because its port could not be opened: see the log, or give another --gossip-listen")
	}
	out = append(out, n.cloneWarnings()...)
	left := time.Until(s.GetServing().GetCaNotAfter().AsTime())
	switch {
	case left <= 0:
		out = append(out, "the registry CA has ended and no pull works: replace it with `trustcast ca rotate`, passing over the hosts with --skip; they get the new one afterwards")
	case left < warnBefore && n.cfg.CALife > 2*warnBefore:
		out = append(out, fmt.Sprintf("the registry CA ends in %d days: rotate it with `trustcast ca rotate`", int(left.Hours()/24)))
	}
	return out
}

// permitted lists the names that a CA may sign for.
func permitted(c *x509.Certificate) []string {
	out := append([]string(nil), c.PermittedDNSDomains...)
	for _, r := range c.PermittedIPRanges {
		out = append(out, r.IP.String())
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func timeOrNil(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func clampInt32(n int) int32 { return int32(min(n, math.MaxInt32)) } //nolint:gosec // bounded above, never negative
