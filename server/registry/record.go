package registry

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/trustcast/trustcast/server/records"
)

const recordName = "registry"

// record is what survives. The zero value is that of a registry nobody changed.
type record struct {
	State State `json:"state,omitempty"`
	// Image is what an upgrade went to, while the configuration still says From.
	Image string `json:"image,omitempty"`
	From  string `json:"from,omitempty"`
	// Secret signs the state of uploads that clients carry, so that an upload
	// begun at one replica, or before a restart, ends at another.
	Secret string `json:"secret"`
}

// Secret returns the kept secret that replicas share, and makes it at the first call.
func Secret(store *records.Store) (string, error) {
	rec, rev, err := read(store)
	if err != nil || rec.Secret != "" {
		return rec.Secret, err
	}
	rec.Secret = rand.Text() + rand.Text()
	_, err = store.Put(recordName, rev, rec)
	return rec.Secret, err
}

// Chosen returns what the operator of a registry that does not run chose last.
func Chosen(store *records.Store) (State, error) {
	rec, _, err := read(store)
	return rec.State, err
}

func read(store *records.Store) (record, uint64, error) {
	var rec record
	rev, err := store.Get(recordName, &rec)
	if errors.Is(err, records.ErrNotFound) {
		return record{State: Running}, 0, nil
	}
	if rec.State == "" {
		rec.State = Running
	}
	return rec, rev, err
}

// ReadUpgraded is Upgraded by the records of a directory, whether or not a server
// runs there; no image is the default.
func ReadUpgraded(dir, image string) (string, error) {
	var rec record
	if err := records.Read(dir, recordName, &rec); err != nil && !errors.Is(err, records.ErrNotFound) {
		return "", err
	}
	return rec.upgraded(cmp.Or(image, DefaultImage)), nil
}

// Restored makes the record of a backup this machine's: an image that is named there
// would run here without anybody's choice.
func Restored(store *records.Store) error {
	rec, rev, err := read(store)
	if err != nil || rec.Image == "" && rec.From == "" {
		return err
	}
	rec.Image, rec.From = "", ""
	if _, err := store.Put(recordName, rev, rec); err != nil {
		return fmt.Errorf("forget the backup's image of the registry: %w", err)
	}
	return nil
}

// upgraded is empty with no configured image: the engine runs none then.
func (rec record) upgraded(configured string) string {
	if configured == "" || rec.From != configured || rec.Image == configured {
		return ""
	}
	return rec.Image
}
