//go:build race

package sim

// raced says whether the race detector watches.
const raced = true
