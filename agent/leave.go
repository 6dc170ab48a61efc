package agent

import (
	"context"

	"github.com/trustcast/trustcast/agent/install"
)

// Leave removes what the agent has written on this host and its identity. What
// was there before stays. The server forgets the host by `trustcast host rm`.
func Leave(_ context.Context, cfg Config) (removed []string, err error) {
	cfg = cfg.withDefaults()
	if _, err := ReadStatus(cfg); err != nil {
		return nil, err
	}
	s := store{dir: cfg.DataDir}
	release, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	var o owned
	if _, err := s.read(ownedFile, &o); err != nil {
		return nil, err
	}
	removed, err = install.Docker{Dir: cfg.DockerCertsDir}.Remove(o.Owned)
	if err != nil {
		return removed, err
	}
	for _, name := range stateFiles {
		if err := s.remove(name); err != nil {
			return removed, err
		}
	}
	return removed, nil
}
