//go:build faults

package main

import (
	"slices"
	"strings"

	"github.com/trustcast/trustcast/agent"
)

// layers turns off what TRUSTCAST_FAULTS names. Only test binaries are built
// with it.
func layers(getenv func(string) string) agent.Layers {
	off := strings.Split(getenv("TRUSTCAST_FAULTS"), ",")
	return agent.Layers{
		NoStream: slices.Contains(off, "no-stream"),
		NoGossip: slices.Contains(off, "no-gossip"),
		NoPoll:   slices.Contains(off, "no-poll"),
	}
}
