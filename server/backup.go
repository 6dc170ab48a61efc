package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/archive"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
)

// backupRecord is the record of the newest backup.
const backupRecord = "backup"

// backupMade says what the newest backup has.
type backupMade struct {
	Made          time.Time `json:"made"`
	Generation    uint64    `json:"generation"`
	WithoutImages bool      `json:"without_images"`
	// CAs are those whose keys are in it.
	CAs []certs.Fingerprint `json:"cas"`
	// Damaged counts the images that were left out.
	Damaged int `json:"damaged"`
}

// BackupConfig is for BackUp.
type BackupConfig struct {
	DataDir       string
	WithoutImages bool
	// Version of the program, for the backup's header.
	Version string
	// Progress is told how much is written and about how much it will be (bytes);
	// nil: nobody is.
	Progress func(written, total int64)
}

// ErrDamaged says that a backup is whole but for images whose data is damaged; the
// text names them.
var ErrDamaged = errors.New("the backup is written, and everything that is sound is in it, but data in the registry is damaged")

// ErrInUse says that another process uses the data directory, like a server that runs,
// starts or drains.
var ErrInUse = records.ErrInUse

// BackUp writes a backup of a data directory on which no server runs; a running one
// is asked by the Backup call. An ErrInUse comes before anything is written, an
// ErrDamaged after a whole backup.
func BackUp(ctx context.Context, cfg BackupConfig, w io.Writer) error {
	if _, err := archive.Settle(cfg.DataDir); err != nil {
		return err
	}
	if !Initialized(cfg.DataDir) {
		return fmt.Errorf("%s holds no registry: name its directory with --data-dir", cfg.DataDir)
	}
	l := layout{cfg.DataDir}
	release, err := records.Lock(l.state())
	if err != nil {
		return err
	}
	defer release()
	store, err := records.Open(l.records())
	if err != nil {
		return err
	}
	return backUp(ctx, l, store, cfg, w)
}

// backUp writes a backup and records that there is one.
func backUp(ctx context.Context, l layout, store *records.Store, cfg BackupConfig, w io.Writer) error {
	made := time.Now().UTC()
	state, err := l.copyState(store.Snapshot)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	b := archive.Backup{
		Header: archive.Header{
			Version: cfg.Version, Made: made, Domain: state.site.Domain, FleetID: state.fleet.FleetID,
			Generation: state.registry.Generation, WithoutImages: cfg.WithoutImages,
		},
		Files: state.files, Dir: l.dir, Progress: cfg.Progress,
	}
	buffered := bufio.NewWriterSize(w, backupChunk)
	report, err := b.Write(ctx, buffered)
	if err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := recordBackup(store, b.Header, report, state.registry.CAs); err != nil {
		return err
	}
	if len(report.Damaged) > 0 {
		return fmt.Errorf("%w; push these images again: %s", ErrDamaged, strings.Join(report.Damaged, "; "))
	}
	return nil
}

// recordBackup keeps that there is a newer backup.
func recordBackup(store *records.Store, h archive.Header, r archive.Report, cas []certs.Fingerprint) error {
	for {
		var newest backupMade
		rev, err := store.Get(backupRecord, &newest)
		if err != nil && !errors.Is(err, records.ErrNotFound) {
			return err
		}
		if newest.Made.After(h.Made) {
			return nil
		}
		newest = backupMade{Made: h.Made, Generation: h.Generation, WithoutImages: h.WithoutImages, CAs: cas, Damaged: len(r.Damaged)}
		if _, err = store.Put(backupRecord, rev, newest); !errors.Is(err, records.ErrConflict) {
			return err
		}
	}
}

// stateCopy is the server's own part of a data directory at one moment.
type stateCopy struct {
	site     site
	registry authority.Description
	fleet    identity.Description
	files    []archive.File
}

// stateTries bounds how often records and keys are read again because a key was
// destroyed between the two: each takes a step of a rotation, minutes apart.
const stateTries = 10

// copyState reads the records as they are at one moment, and the keys that they
// name. A key is there before the record that names it, and until after the record
// that forgets it: where one is missing, or overwritten already, newer records are read.
func (l layout) copyState(snapshot func() records.Snapshot) (c stateCopy, err error) {
	for range stateTries {
		if c, err = copyRecords(snapshot()); err != nil {
			return stateCopy{}, err
		}
		if err = c.addKeys(records.ReadKeys(l.keys())); err == nil {
			break
		}
	}
	if err != nil {
		return stateCopy{}, err
	}
	for _, file := range []string{l.htpasswd(), l.caFile()} { // derived copies, for those who unpack with tar
		if err := c.addDir(l.dir, filepath.Dir(file)); err != nil {
			return stateCopy{}, err
		}
	}
	return c, nil
}

func copyRecords(s records.Snapshot) (c stateCopy, err error) {
	if c, err = describe(s); err != nil {
		return c, err
	}
	for _, name := range s.Names() {
		data, err := s.File(name)
		if err != nil {
			return c, err
		}
		c.files = append(c.files, archive.File{Path: "state/records/" + name + ".json", Data: data})
	}
	return c, nil
}

// addKeys adds the keys that the records name. A restore would refuse one that is not
// whole.
func (c *stateCopy) addKeys(keys *records.Keys) error {
	for _, id := range slices.Concat(c.registry.Keys, c.fleet.Keys) {
		data, err := keys.File(id)
		if err != nil {
			return err
		}
		c.files = append(c.files, archive.File{Path: "state/keys/" + string(id) + ".key", Data: data})
	}
	return nil
}

// describe reads what a copy of the records says that it is of.
func describe(s records.Snapshot) (c stateCopy, err error) {
	if _, err := s.Get(siteRecord, &c.site); err != nil {
		return c, err
	}
	if c.registry, err = authority.Describe(s); err != nil {
		return c, err
	}
	c.fleet, err = identity.Describe(s, time.Now())
	return c, err
}

// addDir adds the files in one directory that can be in a backup.
func (c *stateCopy) addDir(root, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(filepath.ToSlash(rel), e.Name())
		if !e.Type().IsRegular() || !archive.Takes(name) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		c.files = append(c.files, archive.File{Path: name, Data: data})
	}
	return nil
}
