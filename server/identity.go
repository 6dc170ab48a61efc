package server

import (
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
)

// identityConfig introduces the identities to the rest.
func (n *node) identityConfig(keys *records.Keys) identity.Config {
	return identity.Config{
		Records: n.store, Keys: keys,
		ControlLife: n.cfg.ControlLife, ServerLife: n.cfg.ServerIdentityLife, HostLife: n.cfg.IdentityLife,
		Paused:   n.paused,
		Reissued: n.tellIdentity,
		Log:      n.log,
	}
}

// tellIdentity has everybody told that the control CA was re-issued. Who is not
// told now hears of it on the next stream; hosts have half a life for it.
func (n *node) tellIdentity() {
	if err := n.authority.Touch("age", ""); err != nil {
		n.log.Error("the re-issued control CA is not announced yet; hosts get it when they connect", "err", err)
	}
}
