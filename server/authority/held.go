package authority

import (
	"crypto/x509"
	"fmt"

	"github.com/trustcast/trustcast/server/records"
)

// Held reads a copy of the records, and returns every certificate whose key they name. An
// error says what does not fit together: a certificate that the rotation names and the
// record does not have, or a leaf that its CA has not signed.
func Held(s records.Snapshot) ([]records.Held, error) {
	var rec record
	if _, err := s.Get(recordName, &rec); err != nil {
		return nil, fmt.Errorf("registry CA: %w", err)
	}
	if _, err := rec.wanted(); err != nil {
		return nil, fmt.Errorf("registry CA: %w", err)
	}
	if _, err := rec.chain(rec.Rotation.Chain); err != nil {
		return nil, fmt.Errorf("registry CA: %w", err)
	}
	var all []records.Held
	issuers := map[CAID]*x509.Certificate{}
	for _, ca := range rec.CAs {
		cert, err := x509.ParseCertificate(ca.Cert)
		if err != nil {
			return nil, fmt.Errorf("registry CA %d: %w", ca.ID, err)
		}
		issuers[ca.ID] = cert
		if ca.Key == "" && ca.ID != rec.Rotation.Active {
			continue // the certificate alone is left, in the bundle
		}
		life := rec.life(ca, cert)
		all = append(all, records.Held{
			What: "registry_ca", Subject: cert.Subject.CommonName, Cert: cert, Key: ca.Key,
			Made: life.From, Ends: life.Until, Serving: ca.ID == rec.Rotation.Active, Adopted: !ca.Adopted.IsZero(),
		})
	}
	for _, l := range rec.Leaves {
		cert, err := x509.ParseCertificate(l.Cert)
		if err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", l.Host, err)
		}
		adopted := l.CA == rec.Rotation.Adopted && l.CA != 0
		if issuer := issuers[l.CA]; !adopted {
			if issuer == nil {
				return nil, fmt.Errorf("the certificate for %s names CA %d, which the record does not have: restore it from a backup", l.Host, l.CA)
			}
			if err := cert.CheckSignatureFrom(issuer); err != nil {
				return nil, fmt.Errorf("the certificate for %s is not signed by CA %d: %w: restore the record from a backup", l.Host, l.CA, err)
			}
		}
		all = append(all, records.Held{
			What: "leaf", Subject: l.Host, Cert: cert, Key: l.Key,
			Made: l.Made, Ends: cert.NotAfter, Serving: l.CA == rec.Rotation.Active, Adopted: adopted,
		})
	}
	return all, nil
}
