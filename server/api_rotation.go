package server

import (
	"context"
	"fmt"
	"strings"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/identity"
)

// RotateCA starts a rotation. Hosts to skip are checked first; with a rotation
// under way, only skips and deadline are taken, unless it is to be replaced.
func (a *adminAPI) RotateCA(ctx context.Context, req *pb.RotateCARequest) (*pb.RotateCAResponse, error) {
	n, by := a.node, callerName(ctx)
	skip, err := n.hostsNamed(req.GetSkip())
	if err != nil {
		return nil, reply(err)
	}
	start, err := startOf(req)
	if err != nil {
		return nil, reply(err)
	}
	if req.GetRotation() != 0 {
		return n.adjust(by, req.GetRotation(), start, skip)
	}
	if start.Compromised {
		if err := n.voidSecrets(by, start); err != nil {
			return nil, reply(err)
		}
	}
	number, generation, err := n.authority.Rotate(by, start)
	if err != nil && n.authority.UnderWay() && adjusts(start, skip) {
		return n.adjust(by, number, start, skip)
	}
	if err != nil {
		return nil, reply(err)
	}
	if err := n.passOver(by, skip); err != nil {
		return nil, reply(err)
	}
	return &pb.RotateCAResponse{Rotation: number, Generation: generation, Started: true}, nil
}

// startOf reads how a rotation shall begin.
func startOf(req *pb.RotateCARequest) (authority.Start, error) {
	s := authority.Start{Patience: req.GetDeadline().AsDuration(), Compromised: req.GetCompromised(), Replace: req.GetReplace()}
	switch {
	case s.Patience < 0:
		return s, fmt.Errorf("%w: --deadline %s: give a positive duration, for example 10m", identity.ErrInvalid, s.Patience)
	case s.Compromised && s.Replace:
		return s, fmt.Errorf("%w: --compromised replaces a staged CA too; leave --replace out", identity.ErrInvalid)
	case req.GetRotation() != 0 && (s.Compromised || s.Replace):
		return s, fmt.Errorf("%w: --rotation changes a rotation that is under way; leave it out to start another one", identity.ErrInvalid)
	}
	return s, nil
}

// adjusts: there is something that a rotation under way can take.
func adjusts(s authority.Start, skip []identity.Host) bool {
	return !s.Compromised && !s.Replace && (len(skip) > 0 || s.Patience > 0)
}

// adjust changes the rotation that is under way, and starts none: whoever follows
// the advice of a status that is a moment old must not begin another one.
func (n *node) adjust(by string, number uint64, s authority.Start, skip []identity.Host) (*pb.RotateCAResponse, error) {
	w := n.authority.Wanted()
	if !n.authority.UnderWay() || w.Number != number {
		return nil, reply(fmt.Errorf("%w: rotation %d is over; nothing was changed, `trustcast status` shows what is now", authority.ErrNotNow, number))
	}
	if err := n.passOver(by, skip); err != nil {
		return nil, reply(err)
	}
	if s.Patience > 0 {
		if err := n.authority.Wait(by, s.Patience); err != nil {
			return nil, reply(err)
		}
	}
	return &pb.RotateCAResponse{Rotation: number, Generation: w.Bundle.Generation}, nil
}

func (n *node) passOver(by string, hosts []identity.Host) error {
	for _, h := range hosts {
		if err := n.authority.Skip(by, h.ID, h.Name); err != nil {
			return err
		}
	}
	return nil
}

// hostsNamed finds hosts by name or ID, all or none.
func (n *node) hostsNamed(names []string) ([]identity.Host, error) {
	var hosts []identity.Host
	for _, name := range names {
		h, err := n.identity.Host(name)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// RollbackCA takes a rotation back.
func (a *adminAPI) RollbackCA(ctx context.Context, _ *pb.RollbackCARequest) (*pb.RollbackCAResponse, error) {
	return &pb.RollbackCAResponse{}, reply(a.node.authority.Rollback(callerName(ctx)))
}

// PlanRotation says what a rotation would do to whom.
func (a *adminAPI) PlanRotation(_ context.Context, req *pb.PlanRotationRequest) (*pb.PlanRotationResponse, error) {
	n := a.node
	skip, err := n.hostsNamed(req.GetSkip())
	if err != nil {
		return nil, reply(err)
	}
	var ids []string
	for _, h := range skip {
		ids = append(ids, h.ID)
	}
	plan := n.authority.Plan(authority.Start{Compromised: req.GetCompromised(), Replace: req.GetReplace()}, ids)
	resp := &pb.PlanRotationResponse{Strangers: n.strangers()}
	if plan.Blocked != nil {
		resp.Blocked = plan.Blocked.Error()
	}
	for _, o := range plan.Hosts {
		resp.Hosts = append(resp.Hosts, &pb.HostOutlook{Host: o.Host, Outlook: o.What, Text: o.Text})
	}
	return resp, nil
}

// rotationObject is what the log says of a request.
func rotationObject(r *pb.RotateCARequest) string {
	words := r.GetSkip()
	if r.GetCompromised() {
		words = append([]string{"compromised"}, words...)
	}
	if r.GetReplace() {
		words = append([]string{"replace"}, words...)
	}
	return strings.Join(words, " ")
}
