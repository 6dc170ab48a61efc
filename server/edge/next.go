package edge

import (
	"crypto/tls"
	"net/http"
)

const (
	// NextProtocol is the ALPN protocol under which a host looks at the chain
	// that is staged: same address, name and firewall path as a pull, no HTTP.
	NextProtocol = "trustcast-next/1"

	http1Protocol = "http/1.1"
)

// tlsConfig picks one of the prepared configurations for each connection.
func (e *Edge) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: e.configFor}
}

// configFor gives the staged chain to a client that asks for nothing else. All
// others get the served chain and are never offered NextProtocol; while nothing
// is staged that includes the host that asks, so that its handshake fails with
// no_application_protocol.
func (e *Edge) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	p := e.certs.Load()
	if p == nil {
		return nil, errNothingPublished
	}
	if p.next != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == NextProtocol {
		return p.next.config, nil
	}
	return p.current.config, nil
}

// newConfig prepares what every handshake with c's pairs uses. Session tickets
// are off: a resumed session shows no certificate, so a handshake would prove
// nothing about what is served now. It costs little, because Docker, containerd
// and skopeo keep no sessions, and an ECDSA handshake takes 0.6 ms. Records are large
// from the first on: small ones let a client show the top of a page early, and here
// would only be more of them.
func (c *chains) newConfig(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{protocol},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		GetCertificate:              c.pick,
	}
}

// closeNext ends a connection that came for the staged chain: the handshake was
// the whole answer, and the server closes when this returns.
func closeNext(*http.Server, *tls.Conn, http.Handler) {}
