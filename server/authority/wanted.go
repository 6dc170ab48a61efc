package authority

import (
	"errors"
	"slices"

	"github.com/trustcast/trustcast/certs"
)

// Wanted is what every host should have, derived from the record.
type Wanted struct {
	// Revision of the record and number of the rotation.
	Revision, Number uint64
	Bundle           certs.Bundle
	// Adopted is the one certificate in Bundle that was taken over with the
	// registry; "" for none.
	Adopted certs.Fingerprint
	Leaves  []Leaf
}

// Leaf is a certificate that the edge serves, or will serve next, for a host
// name.
type Leaf struct {
	Host string
	// Cert in DER.
	Cert []byte
	Next bool
}

// Wanted returns what every host should have now.
func (a *Authority) Wanted() Wanted {
	return *a.wanted.Load()
}

func (rec record) wanted() (Wanted, error) {
	b, err := rec.bundle()
	if err != nil {
		return Wanted{}, err
	}
	r := rec.Rotation
	w := Wanted{Revision: r.Rev, Number: r.Number, Bundle: b}
	if slices.Contains(r.Bundle, r.Adopted) {
		cert, err := rec.cert(r.Adopted)
		if err != nil {
			return Wanted{}, err
		}
		w.Adopted = certs.FingerprintOf(cert)
	}
	for _, l := range rec.Leaves {
		next := l.CA == r.Other
		if next && (r.Phase != Staged || r.Rollback) {
			continue // what goes is no longer anybody's business
		}
		w.Leaves = append(w.Leaves, Leaf{Host: l.Host, Cert: l.Cert, Next: next})
	}
	if len(w.Leaves) == 0 {
		return Wanted{}, errors.New("the record has no leaf: restore it from a backup")
	}
	return w, nil
}
