package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// ShowCA knows the history, unless that shall not be asked.
func (f *fakeServer) ShowCA(ctx context.Context, _ *pb.ShowCARequest) (*pb.ShowCAResponse, error) {
	if f.history == nil {
		return f.UnimplementedAdminServiceServer.ShowCA(ctx, nil)
	}
	return &pb.ShowCAResponse{History: f.history}, nil
}

// TestHowARotationEnds: what passes between two statuses is in the history, and decides
// what `ca rotate --wait` says.
func TestHowARotationEnds(t *testing.T) {
	numbered := func(number uint64, s *pb.Status) *pb.Status {
		s.Rotation.Number = number
		return s
	}
	history := func(number uint64, events ...string) (all []*pb.HistoryEntry) {
		for _, e := range events {
			all = append(all, &pb.HistoryEntry{Rotation: number, Generation: 9, Event: e})
		}
		return all
	}
	staged, idle, next := at(phaseStaged, 8, "-a"), at(phaseIdle, 9, "a"), numbered(5, at(phaseStaged, 10, "-a"))
	done := history(4, "rotate", "switch", "retire", "done")
	for _, c := range []struct {
		what     string
		statuses []*pb.Status
		history  []*pb.HistoryEntry
		fails    string // "": it is done
		says     string
	}{
		{"all of it was seen", []*pb.Status{staged, at(phaseRetiring, 9, "-a"), idle}, nil, "", "rotation 4 is done: generation 9"},
		{"only the end was seen", []*pb.Status{idle}, done, "", "rotation 4 is done: generation 9"},
		{"a rollback was not seen", []*pb.Status{staged, idle}, history(4, "rotate", "rollback", "done"), "rotation 4 was rolled back", "rotation 4 is rolled back: generation 9"},
		{"nor one after the switch", []*pb.Status{at(phaseSwitched, 8, "-a"), idle}, history(4, "rotate", "switch", "rollback", "rollback", "done"), "rotation 4 was rolled back", "rotation 4 is rolled back: generation 9"},
		{"another began at once", []*pb.Status{staged, next}, append(done, history(5, "rotate")...), "", "Rotation 4 is done: generation 9; rotation 5 has begun since"},
		{"another began after a rollback", []*pb.Status{staged, next}, append(history(4, "rollback", "done"), history(5, "rotate")...), "rotation 4 was rolled back", ""},
		{"it made way", []*pb.Status{staged, next}, append(history(4, "rotate"), history(5, "compromise")...), "rotation 4 made way for rotation 5", ""},
		{"a backup was restored", []*pb.Status{staged, numbered(3, at(phaseIdle, 9, "a"))}, nil, "the server is at rotation 3 and does not know rotation 4", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir, socket := adminSocket(t)
			serveAdmin(t, listenAt(t, socket), &fakeServer{statuses: c.statuses, history: c.history})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // one that waits for nothing
			defer cancel()
			var out bytes.Buffer
			err := run(ctx, []string{"ca", "rotate", "--wait", "--yes", "--data-dir", dir}, func(string) string { return "" }, strings.NewReader(""), &out, &out)
			switch {
			case c.fails == "" && err != nil, c.fails != "" && (cli.Code(err) != cli.Failed || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("exit code %d, %v", cli.Code(err), err)
			case !strings.Contains(out.String(), c.says), c.fails != "" && strings.Contains(out.String(), "is done"):
				t.Errorf("it says\n%s", out.String())
			}
		})
	}
}
