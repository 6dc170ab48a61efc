package main

import (
	"runtime"
	"runtime/debug"
)

// garbage is how much of what is in use may be added before it is collected, in
// percent, while there is work; at rest, memory.Return collects it.
const garbage = 50

// lean makes this process a small neighbour. Its work is one thing after the other
// and a few small packets a second: a second processor would only be woken to find
// nothing. What the environment says of either stays.
func lean(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}
