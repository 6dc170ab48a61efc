//go:build faults

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/agent"
)

// layers turns off what TRUSTCAST_FAULTS names. Only test binaries are built
// with it.
func layers(getenv func(string) string) agent.Layers {
	off := faults(getenv)
	return agent.Layers{
		NoStream: slices.Contains(off, "no-stream"),
		NoGossip: slices.Contains(off, "no-gossip"),
		NoPoll:   slices.Contains(off, "no-poll"),
	}
}

// clock is wrong by what TRUSTCAST_FAULTS says, as in clock=-50m; nil is the
// system's.
func clock(getenv func(string) string) (func() time.Time, error) {
	for _, fault := range faults(getenv) {
		text, ok := strings.CutPrefix(fault, "clock=")
		if !ok {
			continue
		}
		offset, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("TRUSTCAST_FAULTS: %s: %w; write it like clock=-50m", fault, err)
		}
		return func() time.Time { return time.Now().Add(offset) }, nil
	}
	return nil, nil
}

func faults(getenv func(string) string) []string {
	return strings.Split(getenv("TRUSTCAST_FAULTS"), ",")
}
