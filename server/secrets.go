package server

import "github.com/trustcast/trustcast/server/authority"

// voidSecrets makes worthless what a thief of the registry CA's key may have
// taken along: join tokens and the gossip key. It comes before the new CA, so that
// a crash between costs a repetition and nothing is forgotten.
func (n *node) voidSecrets(by string, s authority.Start) error {
	if err := n.authority.Plan(s, nil).Blocked; err != nil {
		return err
	}
	revoked, err := n.identity.RevokeTokens()
	if err != nil {
		return err
	}
	n.log.Warn("the registry CA's key is reported stolen: join tokens are revoked, the gossip key is replaced", "tokens", revoked)
	_, err = n.rollGossip(by)
	return err
}
