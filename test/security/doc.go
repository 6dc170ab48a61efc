// Package security holds the tests that attack: real servers and agents in this
// process, over TLS on loopback ports or in simulated time, and opponents who
// hold one thing more each than a stranger: a token, a host's identity, the
// gossip key, the control CA's key. Each attack has an honest twin that shows
// that what is refused would otherwise work.
package security
