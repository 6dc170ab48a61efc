package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"time"
)

// Parts of a life after which certificates are replaced.
const (
	// RenewAfter is for all but the control CA.
	RenewAfter = 2.0 / 3
	// ReissueAfter is for the control CA, whose new certificate must reach hosts
	// that sleep for years.
	ReissueAfter = 1.0 / 2

	// renewSpread is the part of a life over which renewals are spread, so that
	// what was made together is not replaced together.
	renewSpread = 0.05
)

// RenewAt returns when a certificate made at a time is replaced: after a part of
// its life (0 to 1) and up to 5 % more, drawn from the certificate itself so that
// a restart does not draw again. Made is the time of signing, NotBefore is
// back-dated.
func RenewAt(cert *x509.Certificate, made time.Time, after float64) time.Time {
	life := cert.NotAfter.Sub(made)
	sum := sha256.Sum256(cert.Raw)
	draw := float64(binary.BigEndian.Uint32(sum[:4])) / (1 << 32)
	return made.Add(time.Duration((after + renewSpread*draw) * float64(life)))
}
