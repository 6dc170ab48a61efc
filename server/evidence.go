package server

import (
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/printable"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/fleet"
)

// Bounds of what a host may report; honest ones are far below.
const (
	maxProblem = 500
	maxSolo    = 8
	maxPath    = 300
	maxPlaces  = 16
)

// evidenceOf reads a report, bounded: its author is a host, not a friend.
func evidenceOf(r *pb.Report) (certs.Evidence, fleet.Details) {
	e := certs.Evidence{
		Boot: r.GetBoot(), Sequence: r.GetSequence(), Revision: r.GetRevision(), Rotation: r.GetRotation(),
		Generation: r.GetGeneration(), Fingerprint: certs.Fingerprint(printable.Clip(r.GetFingerprint(), 64)),
		Offline: r.GetOffline(), Probe: outcomeOf(r.GetProbe()), Live: outcomeOf(r.GetLive()),
		Problem: printable.Clip(r.GetProblem(), maxProblem),
	}
	for _, fp := range r.GetSoloRoots()[:min(maxSolo, len(r.GetSoloRoots()))] {
		e.SoloRoots = append(e.SoloRoots, certs.Fingerprint(printable.Clip(fp, 64)))
	}
	d := fleet.Details{
		Gossip: printable.Clip(r.GetGossip(), 20), Version: printable.Clip(r.GetVersion(), 40), GossipVersion: r.GetGossipVersion(),
		Repairs: r.GetRepairs(), Contested: printable.Clip(r.GetContested(), maxPath), Places: placesOf(r.GetPlaces()),
	}
	if r.GetTime().IsValid() {
		d.Skew, d.Timed = time.Until(r.GetTime().AsTime()), true
	}
	return e, d
}

func placesOf(reported []*pb.Place) []fleet.Place {
	var out []fleet.Place
	for _, p := range reported[:min(maxPlaces, len(reported))] {
		out = append(out, fleet.Place{
			Runtime: printable.Clip(p.GetRuntime(), 80), Dir: printable.Clip(p.GetDir(), maxPath), Problem: printable.Clip(p.GetProblem(), maxProblem),
		})
	}
	return out
}

func outcomeOf(o pb.Outcome) certs.Outcome {
	switch o {
	case pb.Outcome_OUTCOME_OK:
		return certs.OK
	case pb.Outcome_OUTCOME_REFUSED:
		return certs.Refused
	case pb.Outcome_OUTCOME_INTERCEPTED:
		return certs.Intercepted
	case pb.Outcome_OUTCOME_UNRESOLVED:
		return certs.Unresolved
	case pb.Outcome_OUTCOME_UNREACHABLE:
		return certs.Unreachable
	default:
		return certs.NotTried
	}
}
