package sim

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// record is the authority's record as far as the checks need it.
type record struct {
	Value struct {
		Rotation struct {
			Generation uint64
			Phase      string
			Active     uint64
			Other      uint64
			Adopted    uint64
			Bundle     []uint64
			Skipped    []string
			Uncover    []string
			Restored   bool
			// Compromised: the key of a CA is stolen.
			Compromised bool
			Reach       uint64
			SwitchedRev uint64 `json:"switched_rev"`
			Deadline    time.Time
		}
		CAs []struct {
			ID   uint64
			Cert []byte
			Key  string
		}
		Leaves []struct {
			CA  uint64
			Key string
		}
	}
}

// hasKey: the record names the key of a CA, or of an adopted one's leaf.
func (r record) hasKey(id uint64) bool {
	for _, ca := range r.Value.CAs {
		if ca.ID == id && ca.Key != "" {
			return true
		}
	}
	for _, l := range r.Value.Leaves {
		if l.CA == id && id == r.Value.Rotation.Adopted && l.Key != "" {
			return true
		}
	}
	return false
}

// active is the certificate of the active CA.
func (r record) active() (*x509.Certificate, error) {
	for _, ca := range r.Value.CAs {
		if ca.ID == r.Value.Rotation.Active {
			return certs.ParseCertificate(ca.Cert)
		}
	}
	return nil, fmt.Errorf("the record has no certificate of CA %d", r.Value.Rotation.Active)
}

func (w *world) readRecord() (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(w.cfg.DataDir, "state", "records", "authority.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}
