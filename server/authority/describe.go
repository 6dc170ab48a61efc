package authority

import (
	"crypto/x509"
	"fmt"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

// Description is what a copy of the records holds of the registry CA.
type Description struct {
	Generation uint64
	// Keys are all that the record names.
	Keys []records.KeyID
	// CAs are those whose keys the record names: the active one, and during a
	// rotation the other.
	CAs []certs.Fingerprint
}

// Describe reads a copy of the records. It proves that they can be read, not that
// their keys are there.
func Describe(s records.Snapshot) (Description, error) {
	var rec record
	if _, err := s.Get(recordName, &rec); err != nil {
		return Description{}, fmt.Errorf("registry CA: %w", err)
	}
	d := Description{Generation: rec.Rotation.Generation, Keys: rec.keys()}
	for _, ca := range rec.CAs {
		cert, err := x509.ParseCertificate(ca.Cert)
		if err != nil {
			return Description{}, fmt.Errorf("registry CA %d: %w", ca.ID, err)
		}
		if ca.Key != "" {
			d.CAs = append(d.CAs, certs.FingerprintOf(cert))
		}
	}
	return d, nil
}
