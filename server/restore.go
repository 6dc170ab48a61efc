package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/server/archive"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/users"
)

// RestoreConfig is for Restore.
type RestoreConfig struct {
	// DataDir takes the data; made if missing.
	DataDir string
	// Force replaces what is there. Images stay when the backup has none.
	Force bool
	// EngineName and Volume as InitConfig has them: DataDir becomes a link to the
	// volume, which is made if missing. Default: those of the registry in its place.
	EngineName, Volume string
}

// Restoration is what a Restore did, for review.
type Restoration struct {
	Domain, FleetID string
	Made            time.Time
	// Generation is above whatever hosts have.
	Generation uint64
	// Files and Bytes were unpacked; Images are the manifests among them.
	Files, Images int
	Bytes         int64
	// WithoutImages: the backup has none. KeptImages: those that were there stay.
	WithoutImages, KeptImages bool
	// Hosts and Users count again, also those that were removed after the backup.
	Hosts, Users []string
	// State of the registry, running, paused or stopped, is that of the backup.
	State string
	// RevokedTokens is how many join tokens were still good in the backup.
	RevokedTokens int
	// Damaged images were left out when the backup was made, in words.
	Damaged []string
}

// Restore unpacks a backup beside the old data, checks all of it, makes it one that
// may lead its fleet again (see Restored) and puts it into the place of the old
// data. Until that last step an error, and a kill, changes nothing; a kill during it
// is finished by whoever opens the directory next. It refuses a directory that is
// not empty, unless forced, and one that a server uses. Of a volume that it made an
// error leaves it, empty.
func Restore(ctx context.Context, cfg RestoreConfig, backup io.Reader) (r Restoration, err error) {
	if backup, err = cfg.place(ctx, backup); err != nil {
		return r, err
	}
	staging, err := archive.Stage(cfg.DataDir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, staging.Discard()) }()
	l := layout{cfg.DataDir}
	release, err := l.claim()
	if err != nil {
		return r, err
	}
	defer release()
	occupied, err := staging.Occupied()
	switch {
	case err != nil:
		return r, err
	case occupied != "" && !cfg.Force:
		return r, fmt.Errorf("%s is not empty (it has %s): give an empty --data-dir, or replace what is there with --force", cfg.DataDir, occupied)
	}
	if err := staging.Check(); err != nil {
		return r, err
	}
	engine, err := cfg.engine(l)
	if err != nil {
		return r, err
	}
	header, report, err := archive.Unpack(ctx, backup, staging.Dir())
	if err != nil {
		return r, err
	}
	r = Restoration{
		Domain: header.Domain, FleetID: header.FleetID, Made: header.Made, WithoutImages: header.WithoutImages,
		Files: report.Files, Images: report.Images, Bytes: report.Bytes, Damaged: report.Damaged,
	}
	staged := layout{staging.Dir()}
	if err := staged.renew(header, report, &r); err != nil {
		return r, err
	}
	if err := staged.setEngine(engine); err != nil {
		return r, err
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	// A server that starts at once must not come between the renames.
	releaseStaged, err := records.Lock(staged.state())
	if err != nil {
		return r, err
	}
	defer releaseStaged()
	r.KeptImages = header.WithoutImages && exists(l.images())
	return r, staging.Commit()
}

// place makes the data directory a link to the volume, if one is wanted, once there is
// a backup to fill it with.
func (cfg RestoreConfig) place(ctx context.Context, backup io.Reader) (io.Reader, error) {
	if cfg.Volume == "" {
		return backup, nil
	}
	if err := checkVolume(cfg.EngineName, cfg.Volume); err != nil {
		return nil, err
	}
	header, backup, err := archive.Peek(backup)
	if err != nil {
		return nil, err
	}
	return backup, placeInVolume(ctx, cfg.DataDir, cfg.Volume, header.Domain)
}

// engine is what the restored registry shall run with: what is wanted, or as the one
// in its place did, or the default. Engine and volume are the machine's and not the
// registry's.
func (cfg RestoreConfig) engine(place layout) (wanted site, err error) {
	var there site
	if Initialized(place.dir) {
		store, err := records.Open(place.records())
		if err != nil {
			return site{}, err
		}
		if _, err := store.Get(siteRecord, &there); err != nil {
			return site{}, err
		}
	}
	wanted = site{Engine: cmp.Or(cfg.EngineName, there.Engine), Volume: cfg.Volume}
	if wanted.Engine == engineDocker {
		wanted.Volume = cmp.Or(cfg.Volume, there.Volume)
	}
	return wanted, checkVolume(wanted.Engine, wanted.Volume)
}

// setEngine changes the engine and the volume of a registry that nobody runs yet.
func (l layout) setEngine(wanted site) error {
	store, err := records.Open(l.records())
	if err != nil {
		return err
	}
	var restored site
	rev, err := store.Get(siteRecord, &restored)
	if err != nil {
		return err
	}
	if restored.Engine == wanted.Engine && restored.Volume == wanted.Volume {
		return nil
	}
	restored.Engine, restored.Volume = wanted.Engine, wanted.Volume
	_, err = store.Put(siteRecord, rev, restored)
	return err
}

// claim keeps servers out of a data directory that may hold a registry.
func (l layout) claim() (release func(), err error) {
	if !exists(l.state()) {
		return func() {}, nil
	}
	release, err = records.Lock(l.state())
	if errors.Is(err, records.ErrInUse) {
		err = fmt.Errorf("%w %s: stop it first, restore, then start it again (systemd's stops with `systemctl stop trustcast 'trustcast-*.socket'`); nothing was changed", records.ErrInUse, l.dir)
	}
	return release, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// renew checks the server's part of what was unpacked and makes it lead its fleet
// again.
func (l layout) renew(header archive.Header, report archive.Report, r *Restoration) error {
	refused := func(err error) error {
		return fmt.Errorf("%w: %w; nothing was changed, use another backup", archive.ErrRefused, err)
	}
	if !Initialized(l.dir) {
		return refused(errors.New("it holds no registry"))
	}
	store, err := records.Open(l.records())
	if err != nil {
		return refused(err)
	}
	before, err := l.verify(store, header)
	if err != nil {
		return refused(err)
	}
	if r.Users, err = users.NamesIn(store.Snapshot()); err != nil {
		return refused(err)
	}
	r.RevokedTokens = before.fleet.Tokens
	// What the backup knows of backups is older than itself.
	if err := recordBackup(store, header, report, before.registry.CAs); err != nil {
		return err
	}
	if err := l.create(); err != nil { // directories that were empty
		return err
	}
	if !header.WithoutImages { // a registry without images replaces one with some
		if err := durable.MkdirAll(l.images(), 0o755); err != nil {
			return err
		}
	}
	if err := Restored(l.dir, header.Made, time.Now()); err != nil {
		return err
	}
	after, err := records.Open(l.records())
	if err != nil {
		return err
	}
	now, err := describe(after.Snapshot())
	if err != nil {
		return err
	}
	r.Generation, r.Hosts = now.registry.Generation, now.fleet.Hosts
	chosen, err := registry.Chosen(after)
	r.State = string(chosen)
	return err
}

// verify: the records can be read and are of what the header says, each key that
// they name is there and is that key, and there is no other.
func (l layout) verify(store *records.Store, header archive.Header) (stateCopy, error) {
	c, err := describe(store.Snapshot())
	if err != nil {
		return c, err
	}
	if _, err := c.site.names(); err != nil {
		return c, err
	}
	if c.site.Domain != header.Domain || c.fleet.FleetID != header.FleetID || c.registry.Generation != header.Generation {
		return c, errors.New("its records are not of the registry that its header names")
	}
	keys, err := records.OpenKeys(l.keys())
	if err != nil {
		return c, err
	}
	named := map[records.KeyID]bool{}
	for _, id := range append(c.registry.Keys, c.fleet.Keys...) {
		named[id] = true
		if _, err := keys.Signer(id); err != nil {
			return c, err
		}
	}
	ids, err := keys.List()
	if err != nil {
		return c, err
	}
	for _, id := range ids {
		if !named[id] {
			return c, fmt.Errorf("it has a private key %s that no record names", id)
		}
	}
	return c, nil
}
