package server

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/fleet"
	"github.com/trustcast/trustcast/server/identity"
)

// FuzzReport reads what a host may send. Whatever it is, what is kept of it is
// small, fit for a terminal, and can be sent on in a status.
func FuzzReport(f *testing.F) {
	for _, r := range []*pb.Report{
		{},
		{Boot: 1, Sequence: 2, Generation: 3, Fingerprint: strings.Repeat("a", 64), SoloRoots: []string{strings.Repeat("b", 64)}, Offline: true, Probe: pb.Outcome_OUTCOME_OK, Live: pb.Outcome_OUTCOME_REFUSED, Gossip: "ok", Version: "v1", Time: timestamppb.New(time.Unix(1e9, 0))},
		{Problem: strings.Repeat("é", maxProblem), SoloRoots: make([]string, 100)},
		{Problem: "\x1b[2J\u202egone\u2028", Version: strings.Repeat("\U0001f4a3", 11), Probe: 99},
		{Repairs: 1 << 63, Contested: strings.Repeat("/\x1b", maxPath), Places: []*pb.Place{{Runtime: "docker", Dir: "/etc/docker/certs.d\n"}, nil}},
		{Places: make([]*pb.Place, 100)},
		{Time: &timestamppb.Timestamp{Seconds: -1 << 62, Nanos: -1}},
		{Time: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999999999}},
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r pb.Report
		if proto.Unmarshal(data, &r) != nil {
			return // gRPC refuses it
		}
		e, d := evidenceOf(&r)
		if len(e.SoloRoots) > maxSolo {
			t.Errorf("%d roots are kept", len(e.SoloRoots))
		}
		fit(t, "problem", e.Problem, maxProblem)
		fit(t, "fingerprint", string(e.Fingerprint), 64)
		fit(t, "gossip", d.Gossip, 20)
		fit(t, "version", d.Version, 40)
		fit(t, "contested", d.Contested, maxPath)
		if len(d.Places) > maxPlaces {
			t.Errorf("%d places are kept", len(d.Places))
		}
		for _, p := range d.Places {
			fit(t, "runtime", p.Runtime, 80)
			fit(t, "directory", p.Dir, maxPath)
			fit(t, "problem of a place", p.Problem, maxProblem)
		}
		for _, root := range e.SoloRoots {
			fit(t, "root", string(root), 64)
		}
		for _, o := range []certs.Outcome{e.Probe, e.Live} {
			switch o {
			case certs.NotTried, certs.OK, certs.Refused, certs.Intercepted, certs.Unresolved, certs.Unreachable:
			default:
				t.Errorf("outcome %q", o)
			}
		}
		host := hostStatus(identity.Host{ID: "id", Name: "name"}, fleet.State{Evidence: &e, Details: d, Present: true}, authority.Verdict{})
		if _, err := proto.Marshal(&pb.Status{Hosts: []*pb.Host{host}}); err != nil {
			t.Errorf("the status cannot be sent: %v", err)
		}
	})
}

func fit(t *testing.T, what, s string, most int) {
	t.Helper()
	if len(s) > most || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s %q: %d bytes, %d are allowed, or not fit for a terminal", what, s, len(s), most)
	}
}
