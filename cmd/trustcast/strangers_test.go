package main

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

func TestPrintStrangers(t *testing.T) {
	now := timestamppb.Now()
	var out bytes.Buffer
	for n, want := range map[int]struct {
		lines int
		more  bool
	}{0: {0, false}, 1: {1, false}, maxStrangers: {maxStrangers, false}, maxStrangers + 5: {maxStrangers, true}} {
		out.Reset()
		var strangers []*pb.Stranger
		for range n {
			strangers = append(strangers, &pb.Stranger{Address: "192.0.2.7", LastSeen: now, Requests: 3})
		}
		if err := printStrangers(&out, strangers, now); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		if lines, more := strings.Count(text, "192.0.2.7"), strings.Contains(text, "and 5 more"); lines != want.lines || more != want.more {
			t.Errorf("%d strangers: %d lines, more: %v\n%s", n, lines, more, text)
		}
		if (text == "") != (n == 0) {
			t.Errorf("%d strangers print %q", n, text)
		}
	}
}
