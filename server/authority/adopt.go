package authority

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// Adopt writes the record of a registry that was taken over: it goes on serving
// adopted's leaf with key, under every name that the leaf has, at generation 0.
// Nothing is signed, and a record that is there is never replaced. key must be the
// leaf's.
func Adopt(cfg Config, adopted certs.Adopted, key crypto.Signer, now time.Time, by string) (certs.Bundle, error) {
	id, err := cfg.Keys.Import(key)
	if err != nil {
		return certs.Bundle{}, err
	}
	rec := record{Rotation: Taken()}
	rec.CAs = []caRecord{{ID: rec.Rotation.Adopted, Cert: adopted.Root.Raw, Adopted: now.UTC()}}
	for _, name := range cfg.Names {
		if adopted.Leaf.VerifyHostname(name.Host) != nil || rec.hasLeaf(name.Host) {
			continue // served from the first rotation on
		}
		leaf := leafRecord{CA: rec.Rotation.Adopted, Host: name.Host, Cert: adopted.Leaf.Raw, Key: id, Made: now.UTC()}
		for _, c := range adopted.Chain {
			leaf.Chain = append(leaf.Chain, c.Raw)
		}
		rec.Leaves = append(rec.Leaves, leaf)
	}
	if len(rec.Leaves) == 0 {
		return certs.Bundle{}, fmt.Errorf("adopt registry CA: the certificate of %q has none of the registry's names", adopted.Leaf.Subject)
	}
	rec.note(Entry{Time: now, Event: "adopted", By: by, Detail: adopted.Root.Subject.String()})
	if _, err := cfg.Records.Put(recordName, 0, rec); err != nil {
		return certs.Bundle{}, fmt.Errorf("adopt registry CA: %w", err)
	}
	return rec.bundle()
}

func (rec record) hasLeaf(host string) bool {
	for _, l := range rec.Leaves {
		if l.Host == host {
			return true
		}
	}
	return false
}

// life of a CA. An adopted one lives from its taking over, and until it or its leaf
// ends: that leaf has no successor.
func (rec record) life(ca caRecord, cert *x509.Certificate) Life {
	if ca.Adopted.IsZero() {
		return Life{From: cert.NotBefore.Add(certs.CABackdate), Until: cert.NotAfter}
	}
	return Life{From: ca.Adopted, Until: rec.endsFirst(ca.ID, cert).NotAfter}
}

// endsFirst is the one that ends first among a CA's certificate and its leaves.
func (rec record) endsFirst(id CAID, first *x509.Certificate) *x509.Certificate {
	for _, l := range rec.Leaves {
		leaf, err := x509.ParseCertificate(l.Cert)
		if err == nil && l.CA == id && leaf.NotAfter.Before(first.NotAfter) {
			first = leaf
		}
	}
	return first
}
