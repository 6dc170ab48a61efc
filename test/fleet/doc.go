// Package fleet tests trustcast on real Docker engines. Each host is a network
// namespace with its own dockerd; the server has a namespace of its own, so
// that nothing goes through loopback, where dockerd verifies nothing.
//
// The tests need root and run when TRUSTCAST_FLEET=1; see README.md. All that
// they make on the machine is named after one run and removed at its end, by a
// process of its own, so that it is removed also when the test is killed.
package fleet
