package agent

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// report is evidence as it travels.
func (a *membership) report(e certs.Evidence) *pb.Report {
	a.sequence++
	r := &pb.Report{
		Boot: a.boot, Sequence: a.sequence, Revision: e.Revision, Rotation: e.Rotation,
		Generation: e.Generation, Fingerprint: string(e.Fingerprint), Offline: e.Offline,
		Probe: outcomes[e.Probe], Live: outcomes[e.Live], Problem: e.Problem,
		Gossip: a.gossipState(), GossipVersion: a.ring.Version, Version: a.cfg.Version, Time: timestamppb.New(a.cfg.Now()),
		Repairs: a.repairs.total, Contested: a.repairs.contested(), Places: a.places,
	}
	for _, fp := range e.SoloRoots {
		r.SoloRoots = append(r.SoloRoots, string(fp))
	}
	return r
}

var outcomes = map[certs.Outcome]pb.Outcome{
	certs.NotTried: pb.Outcome_OUTCOME_UNSPECIFIED, certs.OK: pb.Outcome_OUTCOME_OK,
	certs.Refused: pb.Outcome_OUTCOME_REFUSED, certs.Intercepted: pb.Outcome_OUTCOME_INTERCEPTED,
	certs.Unresolved: pb.Outcome_OUTCOME_UNRESOLVED, certs.Unreachable: pb.Outcome_OUTCOME_UNREACHABLE,
}
