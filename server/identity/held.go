package identity

import (
	"crypto/x509"
	"fmt"

	"github.com/trustcast/trustcast/server/records"
)

// Held reads a copy of the records, and returns the control CA and the server's identity
// with the keys that they name. An error says what does not fit together.
func Held(s records.Snapshot) ([]records.Held, error) {
	var c control
	if _, err := s.Get(recordName, &c); err != nil {
		return nil, fmt.Errorf("control CA: %w", err)
	}
	ca, err := x509.ParseCertificate(c.CA)
	if err != nil {
		return nil, fmt.Errorf("control CA: %w", err)
	}
	server, err := x509.ParseCertificate(c.Server)
	if err != nil {
		return nil, fmt.Errorf("server identity: %w", err)
	}
	if err := server.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the server's identity is not signed by the control CA: %w: restore the record from a backup", err)
	}
	made := (&Identity{control: c, ca: ca}).caMade()
	return []records.Held{
		{What: "control_ca", Subject: ca.Subject.CommonName, Cert: ca, Key: c.CAKey, Made: made, Ends: ca.NotAfter, Serving: true},
		{What: "server_identity", Subject: "server", Cert: server, Key: c.ServerKey, Made: c.ServerMade, Ends: server.NotAfter, Serving: true},
	}, nil
}
