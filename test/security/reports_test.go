package security

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestHostSpeaksForItselfOnly: whatever a host sends counts for it alone.
func TestHostSpeaksForItselfOnly(t *testing.T) {
	t.Parallel()
	w := start(t)
	victim, liar := w.rawHost("victim"), w.rawHost("liar")
	cover := func(h *rawHost) *rawStream {
		s := w.sync(&h.pair)
		s.report(&pb.Report{})
		s.report(complete(t, s.wanted()))
		until(t, h.name+" is covered", func() bool { return w.host(h.name).GetCovered() })
		return s
	}
	vs, ls := cover(victim), cover(liar)
	ls.cancel()

	// A stream with everything that could name another host, if anybody read it.
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, "host", victim.id, "host-id", victim.id, "name", "victim", "authorization", victim.id)
	stream, err := w.agentService(&liar.pair).Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := &rawStream{AgentService_SyncClient: stream, t: t, cancel: cancel}
	s.sequence = 1000
	s.report(&pb.Report{})
	s.wanted()
	w.rotate(time.Hour)
	staged := s.wantedFrom(2)
	vs.wantedFrom(2)

	forgery := complete(t, staged)
	var unknown []byte
	for known, field := forgery.ProtoReflect().Descriptor().Fields(), protowire.Number(1); field < 60; field++ {
		if known.ByNumber(field) != nil {
			continue
		}
		unknown = protowire.AppendTag(unknown, field, protowire.BytesType)
		unknown = protowire.AppendString(unknown, victim.id)
	}
	forgery.ProtoReflect().SetUnknown(unknown)
	s.report(forgery)
	until(t, "the liar's evidence counts for the liar", func() bool { return w.host("liar").GetState() == "trusted" })
	for range 20 {
		s.report(proto.CloneOf(forgery))
		st := w.status()
		var waits []string
		for _, h := range st.GetRotation().GetWaitingFor() {
			waits = append(waits, h.GetHost())
		}
		if st.GetRotation().GetPhase() != "staged" || !slices.Equal(waits, []string{"victim"}) {
			t.Fatalf("%s, waiting for %v", st.GetRotation().GetPhase(), waits)
		}
	}
	if h := w.host("victim"); h.GetGeneration() != 1 {
		t.Errorf("the victim has generation %d", h.GetGeneration())
	}
	// The twin: the victim's own word ends the waiting.
	vs.report(complete(t, staged))
	s.report(forgery)
	until(t, "the rotation goes on", func() bool {
		s.report(forgery) // evidence ages
		vs.report(complete(t, staged))
		return w.status().GetRotation().GetPhase() == "switched"
	})
}

// TestReportsCannotHurtTheOperator: whatever a host reports, the status can be
// asked for, is of bounded size, and carries nothing that a terminal obeys.
func TestReportsCannotHurtTheOperator(t *testing.T) {
	t.Parallel()
	w := start(t)
	h := w.rawHost("hostile")
	s := w.sync(&h.pair)
	s.report(&pb.Report{})
	good := complete(t, s.wanted())
	tests := map[string]func(r *pb.Report){
		"half a character where it is cut": func(r *pb.Report) {
			long := "x" + strings.Repeat("ü", 4000)
			r.Problem, r.Version, r.Gossip, r.Fingerprint = long, long, long, long
		},
		"escapes of a terminal": func(r *pb.Report) {
			r.Problem, r.Version = "\x1b[2J\x1b[1;1Hall is well\x07\r\n\u009b31m", "\x1b]0;owned\x07"
		},
		"text from right to left": func(r *pb.Report) { r.Problem, r.Version = "\u202e\u2066gnorw si tahw", "\u202e1.0" },
		"numbers at their ends": func(r *pb.Report) {
			r.Revision, r.Rotation, r.Generation = math.MaxUint64, math.MaxUint64, math.MaxUint64
			r.Time = &timestamppb.Timestamp{Seconds: math.MaxInt64, Nanos: -1}
			r.Probe, r.Live = 99, -1
		},
		"a long list": func(r *pb.Report) { r.SoloRoots = slices.Repeat([]string{strings.Repeat("a", 64)}, 900) },
		"a long text": func(r *pb.Report) { r.Problem = strings.Repeat("a", 60<<10) },
	}
	mark := 0
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			mark++
			shown := func(change func(*pb.Report)) (h *pb.Host) {
				before := w.host("hostile").GetProblem()
				r := proto.CloneOf(good)
				r.Problem = "report " + strconv.Itoa(mark)
				change(r)
				s.report(r)
				until(t, "the report is shown", func() bool { // asking for the status must not fail
					h = w.host("hostile")
					return h.GetProblem() != before
				})
				return h
			}
			h := shown(spoil)
			for _, text := range []string{h.GetProblem(), h.GetVersion(), h.GetGossip(), h.GetFingerprint(), h.GetProbe(), h.GetLive()} {
				if len(text) > 600 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("the operator would see %.80q (%d bytes)", text, len(text))
				}
			}
			honest := fmt.Sprintf("no space left on /etc/docker, ünïcode too (%d)", mark)
			if got := shown(func(r *pb.Report) { r.Problem = honest }).GetProblem(); got != honest {
				t.Errorf("an honest text is shown as %q", got)
			}
		})
	}
}
