//go:build !faults

package main

import (
	"time"

	"github.com/trustcast/trustcast/agent"
)

// layers are all on in a normal build.
func layers(func(string) string) agent.Layers { return agent.Layers{} }

// clock is the system's in a normal build.
func clock(func(string) string) (func() time.Time, error) { return nil, nil }
