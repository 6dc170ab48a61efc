package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// at builds a status: phase, generation, then "host" (trusted), "-host"
// (waited for), "~host" (gone) or "!host" (skipped).
func at(phase string, generation uint64, hosts ...string) *pb.Status {
	s := &pb.Status{Generation: generation, Serving: &pb.Serving{Issuer: "CA"}, Rotation: &pb.Rotation{Phase: phase, Number: 4}}
	for _, text := range hosts {
		name := strings.TrimLeft(text, "-~!")
		h := &pb.Host{Name: name, State: "trusted", Generation: generation, Present: true, Covered: true}
		switch text[0] {
		case '-':
			h.State, h.Generation = "pending", generation-1
			s.Rotation.WaitingFor = append(s.Rotation.WaitingFor, &pb.WaitingFor{Host: name, Reason: "has not reported", Advice: "wait"})
		case '~':
			h.State, h.Present = "gone", false
		case '!':
			h.State = "pending"
			s.Rotation.Skipped = append(s.Rotation.Skipped, name)
		}
		s.Hosts = append(s.Hosts, h)
	}
	return s
}

func told(p *progress, statuses ...*pb.Status) []string {
	var out []string
	for i, s := range statuses {
		for _, l := range p.update(s, time.Duration(i+1)*time.Millisecond) {
			out = append(out, strings.Join(strings.Fields(plain(l)), " "))
		}
	}
	return out
}

func TestProgress(t *testing.T) {
	before := at("idle", 7, "a", "b")
	before.Rotation.Number = 3
	rolledBack := func(s *pb.Status) *pb.Status { s.Rotation.Rollback = true; return s }
	for _, test := range []struct {
		name     string
		started  bool
		statuses []*pb.Status
		want     []string
	}{
		{"each host once a step", true, []*pb.Status{
			before,
			at("staged", 8, "-a", "-b"), at("staged", 8, "a", "-b"), at("staged", 8, "a", "-b"),
			at("switched", 8, "-a", "b"), at("retiring", 9, "-a", "-b"), at("idle", 9, "a", "b"),
		}, []string{
			"0.002s staged every host gets the new CA beside the old one",
			"0.003s staged a trusts the old CA and the new one",
			"0.005s staged b trusts the old CA and the new one",
			"0.005s switched the registry serves the new CA's certificate",
			"0.005s switched b confirmed the new certificate",
			"0.006s switched a confirmed the new certificate",
			"0.006s retiring the old CA is retired",
			"0.007s retiring a dropped the old CA",
			"0.007s retiring b dropped the old CA",
			"0.007s idle rotation 4 is done: generation 9, served by CA",
		}},
		{"phases that were too quick to be seen", true, []*pb.Status{before, at("idle", 9, "a")}, []string{
			"0.002s staged every host gets the new CA beside the old one",
			"0.002s staged a trusts the old CA and the new one",
			"0.002s switched the registry serves the new CA's certificate",
			"0.002s switched a confirmed the new certificate",
			"0.002s retiring the old CA is retired",
			"0.002s retiring a dropped the old CA",
			"0.002s idle rotation 4 is done: generation 9, served by CA",
		}},
		{"gone and skipped hosts confirm nothing", true, []*pb.Status{at("staged", 8, "~a", "!b", "-c"), at("switched", 8, "~a", "b", "c")}, []string{
			"0.001s staged every host gets the new CA beside the old one",
			"0.002s staged c trusts the old CA and the new one",
			"0.002s switched the registry serves the new CA's certificate",
			"0.002s switched c confirmed the new certificate",
		}},
		{"joined under way", false, []*pb.Status{at("switched", 8, "-a"), at("idle", 9, "a")}, []string{
			"0.001s switched the registry serves the new CA's certificate",
			"0.002s switched a confirmed the new certificate",
			"0.002s retiring the old CA is retired",
			"0.002s retiring a dropped the old CA",
			"0.002s idle rotation 4 is done: generation 9, served by CA",
		}},
		{"rolled back", true, []*pb.Status{
			at("staged", 8, "a", "-b"), rolledBack(at("retiring", 9, "-a", "-b")), at("retiring", 9, "a", "-b"), at("idle", 9, "a", "b"),
		}, []string{
			"0.001s staged every host gets the new CA beside the old one",
			"0.001s staged a trusts the old CA and the new one",
			"0.002s retiring the new CA is taken back",
			"0.003s retiring a has the old CA alone again",
			"0.004s retiring b has the old CA alone again",
			"0.004s idle rotation 4 is rolled back: generation 9",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, told(newProgress(4, test.started), test.statuses...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A rotation that waits in silence says now and then for whom.
func TestProgressSaysWhomItWaitsFor(t *testing.T) {
	p := newProgress(4, true)
	s := at("staged", 8, "a", "-b")
	p.update(s, time.Second)
	var got []string
	for elapsed := 2 * time.Second; elapsed < 25*time.Second; elapsed += time.Second {
		for _, l := range append(p.update(s, elapsed), p.waits(s, elapsed)...) {
			got = append(got, strings.Join(strings.Fields(plain(l)), " "))
		}
	}
	want := []string{"11.000s staged waits for b: has not reported; wait", "21.000s staged waits for b: has not reported; wait"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProgressTable(t *testing.T) {
	p := newProgress(4, true)
	s := at("staged", 8, "a", "-b", "~c")
	p.update(s, 12*time.Millisecond)
	want := `rotation 4: every host gets the new CA beside the old one
HOST  NEW CA   CONFIRMED  OLD CA GONE
b     waiting
a     0.012s
c     gone
waits for b: has not reported; wait`
	var got []string
	for _, l := range p.table(s) {
		got = append(got, strings.TrimRight(l, " "))
	}
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "1d12h": 36 * time.Hour, "10m": 10 * time.Minute, "1.5h": 90 * time.Minute,
		"": 0, "d": 0, "5": 0, "-1h": 0, "0s": 0, "1d-2h": 0, "0d": 0, "1h1d": 0, "-1d": 0, "99999d": 0, "1.5d": 0,
	} {
		got, err := parseDuration(text)
		if got != want && err == nil || (err != nil) != (want == 0) {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestSpan(t *testing.T) {
	var got []string
	for _, d := range []time.Duration{0, time.Second, 119 * time.Second, 2 * time.Minute, 3 * time.Hour, 50 * time.Hour} {
		got = append(got, span(d))
	}
	if want := "[under 1s 1s 119s 2m 3h 2d]"; fmt.Sprint(got) != want {
		t.Errorf("span: %v, want %s", got, want)
	}
}
