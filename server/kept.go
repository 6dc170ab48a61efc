package server

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
)

// Kept is what a data directory keeps of what Init was told, and counts where a
// server is told nothing else. The zero value is a directory without a registry.
type Kept struct {
	Domain                        string
	Aliases                       []string
	Subject, Engine, Volume       string
	CALife, LeafLife, ControlLife time.Duration
	// Upgraded is the image that an upgrade went to from the configured one; empty:
	// the configured one runs.
	Upgraded string
}

// ReadKept reads it, and changes nothing: a server may be running. image is the
// configured one, empty for the default.
func ReadKept(dataDir, image string) (Kept, error) {
	s, _, err := readSite(dataDir)
	if err != nil || s.Domain == "" {
		return Kept{}, err
	}
	upgraded, err := registry.ReadUpgraded(layout{dataDir}.records(), image)
	return Kept{
		Domain: s.Domain, Aliases: s.Aliases, Subject: s.Subject, Engine: s.Engine, Volume: s.Volume,
		CALife: s.CALife, LeafLife: s.LeafLife, ControlLife: s.ControlLife, Upgraded: upgraded,
	}, err
}

// readSite reads what a data directory is for; made is false where there is no
// registry yet.
func readSite(dataDir string) (s site, made bool, err error) {
	if !Initialized(dataDir) {
		return site{}, false, nil
	}
	err = records.Read(layout{dataDir}.records(), siteRecord, &s)
	if errors.Is(err, records.ErrNotFound) { // a restore was cut short, and Run finishes it
		return site{}, false, nil
	}
	return s, err == nil, err
}

// keep is cfg with what Init was told where nothing else is said.
func (cfg Config) keep(s site) Config {
	cfg.EngineName = cmp.Or(cfg.EngineName, s.Engine, engineEmbedded)
	if cfg.EngineName == engineDocker {
		cfg.Volume = cmp.Or(cfg.Volume, s.Volume)
	}
	cfg.Subject = cmp.Or(cfg.Subject, s.Subject)
	cfg.CALife = cmp.Or(cfg.CALife, s.CALife)
	cfg.LeafLife = cmp.Or(cfg.LeafLife, s.LeafLife)
	cfg.ControlLife = cmp.Or(cfg.ControlLife, s.ControlLife)
	return cfg
}

// takeSubject keeps another subject, for the next CA and all after it.
func (n *node) takeSubject(revision uint64) error {
	if n.cfg.Subject == n.site.Subject {
		return nil
	}
	n.site.Subject = n.cfg.Subject
	if _, err := n.store.Put(siteRecord, revision, n.site); err != nil {
		return fmt.Errorf("keep the subject: %w", err)
	}
	n.log.Info("the subject is kept, and counts from the next CA on, which `trustcast ca rotate` makes", "subject", n.site.Subject)
	return nil
}

// sayPassedOver: the first user is made with the registry, and not at a later start.
func (n *node) sayPassedOver() {
	if n.cfg.User == "" || slices.Contains(n.users.Names(), n.cfg.User) {
		return
	}
	n.log.Warn("--user is passed over, since it is for a registry that is made: add the user with `trustcast user add NAME`", "user", n.cfg.User)
}
