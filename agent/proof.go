package agent

import (
	"crypto/x509"
	"slices"

	"github.com/trustcast/trustcast/certs"
)

// proof is the last handshakes, believed for a while.
type proof struct {
	revision    uint64
	fingerprint certs.Fingerprint
	probe, live certs.Outcome
	problem     string
	ticks       int
	// served are the certificates that live is about, names where they were seen.
	served []leaf
	names  []certs.Name
}

// covers says whether a good handshake still counts: the same certificates are served
// under the same names, and each is verified by its issuer alone, one of today's
// roots (solo, see proveAlone). What else a handshake would show, that the edge serves them to
// this host, it has shown.
func (p proof) covers(served []leaf, names []certs.Name, roots []*x509.Certificate, solo []certs.Fingerprint) bool {
	same := slices.EqualFunc(p.served, served, func(a, b leaf) bool { return a.host == b.host && a.cert.Equal(b.cert) })
	return same && slices.Equal(p.names, names) && p.live == certs.OK && p.ticks < shakeEvery && !slices.ContainsFunc(served, func(l leaf) bool {
		return !slices.ContainsFunc(roots, func(r *x509.Certificate) bool {
			return certs.Issued(r, l.cert) && slices.Contains(solo, certs.FingerprintOf(r))
		})
	})
}
