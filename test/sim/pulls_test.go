package sim

import (
	"crypto/x509"
	"os"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// checkPulls: S1, every covered present host verifies what is served now, and S6,
// that is what the record says. Hosts with the same bytes on disk share a handshake.
func (w *world) checkPulls(when string) {
	if w.isClosed() {
		w.excuse("closed after a restore", 1)
		return
	}
	disks := map[string][]*host{} // by what is on them
	for _, h := range w.covered() {
		pem, err := os.ReadFile(h.caFile())
		if err != nil {
			w.broken(h, when, err)
			continue
		}
		disks[string(pem)] = append(disks[string(pem)], h)
	}
	for pem, hosts := range disks {
		w.checkPull(when, pem, hosts)
	}
}

// checkPull shakes hands for hosts that have one bundle on disk.
func (w *world) checkPull(when, pem string, hosts []*host) {
	roots, err := certs.ParsePEM([]byte(pem))
	var leaf *x509.Certificate
	made := true
	if err == nil {
		leaf, made, err = w.greet("client of "+hosts[0].name, roots)
	}
	switch {
	case !made:
		w.excuse("no server", len(hosts))
	case err != nil:
		for _, h := range hosts {
			w.broken(h, when, err)
		}
	default:
		w.mu.Lock()
		w.shakes++
		w.pulls += len(hosts)
		w.mu.Unlock()
		w.checkIssuer(when, leaf)
	}
}

// checkIssuer: S6, what serves is the record's active CA; at the moment of a switch
// it may still be the one before, since the record comes first.
func (w *world) checkIssuer(when string, leaf *x509.Certificate) {
	w.mu.Lock()
	may := []record{w.last}
	if time.Since(w.servedUntil) == 0 {
		may = append(may, w.servedBefore)
	}
	w.mu.Unlock()
	for _, rec := range may {
		if active, err := rec.active(); err == nil && (leaf.Equal(active) || leaf.CheckSignatureFrom(active) == nil) {
			return
		}
	}
	w.fail("S6 %s: %q serves, and the record says CA %d", when, leaf.Issuer.CommonName, may[0].Value.Rotation.Active)
}

// isClosed: the server was restored and serves nobody, or what it serves is not
// promised to anybody.
func (w *world) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed || time.Since(w.opened) == 0 // the record is durable, the edge comes next
}

// broken is a pull that failed; the promise is for present hosts.
func (w *world) broken(h *host, when string, err error) {
	w.mu.Lock()
	drifted := h.drifted
	w.mu.Unlock()
	switch {
	case drifted:
		w.excuse("broken by somebody else", 1)
	case !w.present(h):
		w.excuse("away", 1)
	default:
		w.fail("S1 %s: %s: %v", when, h.name, err)
	}
}

// excuse counts what was no handshake and may be none.
func (w *world) excuse(reason string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excused[reason] += n
}
