// Package explore walks through everything that can happen to a rotation: the
// real record of server/authority and the real decision of agent, breadth-first,
// with each durable write, publish and message an event of its own that may be
// lost, repeated, overtaken or followed by a crash.
//
// world_test.go is what there is, server_test.go, agent_test.go and
// fate_test.go are what can happen, promise_test.go, step_test.go and live_test.go
// what must hold, code_test.go when two worlds are the same, search_test.go the
// walk, missing_test.go what it must have seen. A
// promise that breaks is printed as the shortest way to it, in lines that
// TestReplay plays again.
package explore
