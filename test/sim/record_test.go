package sim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// record is the authority's record as far as the checks need it.
type record struct {
	Value struct {
		Rotation struct {
			Generation uint64
			Phase      string
			Active     uint64
			Other      uint64
			Bundle     []uint64
			Skipped    []string
			Uncover    []string
			Restored   bool
			Deadline   time.Time
		}
		CAs []struct {
			ID   uint64
			Cert []byte
			Key  string
		}
	}
}

func (w *world) readRecord() (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(w.cfg.DataDir, "state", "records", "authority.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}
