package server

import (
	"fmt"
	"os"
	"time"

	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
)

// Restored makes a data directory that was filled from a backup one that may lead
// its fleet again; made is when the backup was. Its generation is above whatever
// hosts have, join tokens are revoked, the gossip key is another one, the image that
// the registry was upgraded to is forgotten, and the next Run serves nobody until every
// present host has the restored CA. Repeating it does no harm; without it, a server on
// an old state freezes when it hears its hosts.
func Restored(dataDir string, made, now time.Time) error {
	if !Initialized(dataDir) {
		return fmt.Errorf("%s holds no registry: unpack a backup there first", dataDir)
	}
	l := layout{dataDir}
	release, err := records.Lock(l.state())
	if err != nil {
		return err
	}
	defer release()
	store, err := records.Open(l.records())
	if err != nil {
		return err
	}
	// The closed edge first: a crash between leaves a server that serves nobody.
	if err := authority.Restore(store, now, fmt.Sprintf("uid %d", os.Getuid())); err != nil {
		return err
	}
	if err := registry.Restored(store); err != nil {
		return err
	}
	return identity.Restore(store, made, now)
}
