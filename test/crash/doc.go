// Package crash proves that kill -9 loses nothing. It runs the real programs,
// built so that they number each durable write and kill themselves at a given
// one, restarts them, and looks at what is on disk, in the status and in the
// handshakes of a client that trusts only what an agent installed. A rotation,
// joining and init are struck at each point; what else may happen to the CAs and to
// the gossip key at some, and with TRUSTCAST_PROVE=1 at each as well.
//
// The order of each write, and that it comes before the message that tells of
// it, is seen from outside as well: strace of the programs as they are shipped.
package crash
