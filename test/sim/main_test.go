// Simulated hosts shake hands by the million: without post-quantum key exchange, which
// is not what is tried here, and which costs a sixth of the whole.
//
//go:debug tlsmlkem=0
package sim
