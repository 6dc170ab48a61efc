package edge

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
)

// TLS has these numbers (RFC 8446, 5.1 and 6).
const (
	recordAlert = 21
	alertFatal  = 2
	alertBadMAC = tls.AlertError(20)
)

// certificateAlerts are what clients say that do not trust a certificate. Go,
// and so Docker, containerd and skopeo, says bad_certificate for every reason;
// OpenSSL says unknown_ca, or certificate_expired, also of a CA; Java says
// certificate_unknown.
var certificateAlerts = []tls.AlertError{
	42, // bad_certificate
	45, // certificate_expired
	46, // certificate_unknown
	48, // unknown_ca
}

// ended looks at how a connection's handshake went, once it is over.
func (e *Edge) ended(conn net.Conn) {
	secure, ok := conn.(*tls.Conn)
	if !ok || !refusedByClient(secure) {
		return
	}
	e.metrics.refusals.Inc()
	if address := addressOf(secure.RemoteAddr().String()); address.IsValid() {
		e.clients.refusals.note(address)
	}
}

// refusedByClient says whether the client ended the handshake because of the
// certificate. A host that looks at the staged chain does not count: its report
// says more.
func refusedByClient(conn *tls.Conn) bool {
	failed, ok := errors.AsType[*net.OpError](conn.Handshake()) // it was made: this is its result
	if !ok || failed.Err == nil || conn.ConnectionState().NegotiatedProtocol == NextProtocol {
		return false
	}
	switch failed.Op {
	case "remote error": // the client's alert, of a type that is not exported
		return slices.ContainsFunc(certificateAlerts, func(a tls.AlertError) bool { return a.Error() == failed.Err.Error() })
	case "local error":
		raw, ok := conn.NetConn().(*listened)
		return ok && failed.Err.Error() == alertBadMAC.Error() && slices.Contains(certificateAlerts, raw.plainAlert())
	}
	return false
}

// listener has its connections remember what clients said last.
type listener struct{ net.Listener }

// Accept waits for the next connection.
func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &listened{Conn: conn}, nil
}

// listened keeps the last bytes that a client sent. In TLS 1.3 OpenSSL sends the
// alert unencrypted, when crypto/tls expects it encrypted and sees only a record
// that it cannot read.
type listened struct {
	net.Conn
	last      [7]byte // as long as the record of an alert; who reads owns it
	gathering gathering
}

// Write sends p, or keeps it for a moment.
func (l *listened) Write(p []byte) (int, error) { return l.gathering.write(l.Conn, p) }

// Read keeps the end of what it returns.
func (l *listened) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	kept := min(n, len(l.last))
	copy(l.last[:], l.last[kept:])
	copy(l.last[len(l.last)-kept:], p[n-kept:n])
	return n, err
}

// plainAlert is the fatal alert that the client sent last and unencrypted; 0,
// which is no certificate alert, when it sent something else.
func (l *listened) plainAlert() tls.AlertError {
	r := l.last // type, version (2), length (2), level, description
	if r[0] != recordAlert || r[1] != 3 || r[3] != 0 || r[4] != 2 || r[5] != alertFatal {
		return 0
	}
	return tls.AlertError(r[6])
}
