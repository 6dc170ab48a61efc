package records

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"
)

// Held is a certificate that a record has, with the private key that it names for it.
type Held struct {
	// What is "registry_ca", "leaf", "control_ca" or "server_identity"; Subject is whose.
	What, Subject string
	Cert          *x509.Certificate
	Key           KeyID
	// Made and Ends are the life of it, without back-dating.
	Made, Ends time.Time
	// Serving: the edge presents it now, or its leaf; always for the control CA.
	Serving bool
	// Adopted: it was taken over with the registry, and cannot be renewed here.
	Adopted bool
}

// ReadKeys returns the keys under dir for looking at them; nothing is made there.
func ReadKeys(dir string) *Keys { return &Keys{dir: dir} }

// Check says why the key of a certificate cannot be used: it is missing, damaged, or
// another one.
func (k *Keys) Check(h Held) error {
	if _, err := k.Signer(h.Key); err != nil {
		return err
	}
	sum := sha256.Sum256(h.Cert.RawSubjectPublicKeyInfo)
	if got := KeyID(hex.EncodeToString(sum[:])); got != h.Key {
		return fmt.Errorf("the record names the key %s for a certificate that has the key %s: restore the state directory from a backup", h.Key, got)
	}
	return nil
}
