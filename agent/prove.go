package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// nextProtocol is what the edge answers with its future chain; nothing is
// spoken over it.
const nextProtocol = "trustcast-next/1"

// handshakeLimit is enough for a slow link and short against a tick;
// handshakesLimit bounds those of all names together, so that a host whose
// registry port is silently dropped still reports in time.
const (
	handshakeLimit  = 5 * time.Second
	handshakesLimit = 20 * time.Second
)

// exchanges leave the post-quantum ones out: nothing secret is said, and they are a
// fifth of what a handshake costs both sides. P-256 is in assembly, X25519 is not, and
// another twelfth.
var exchanges = []tls.CurveID{tls.CurveP256, tls.X25519}

// leaf is a certificate that the registry serves, or will serve.
type leaf struct {
	host string
	cert *x509.Certificate
	next bool
}

func parseLeaves(in []*pb.Leaf) ([]leaf, error) {
	if len(in) > 2*maxNames {
		return nil, fmt.Errorf("wanted state refused: it has %d leaves", len(in))
	}
	var out []leaf
	for _, l := range in {
		cert, err := certs.ParseCertificate(l.GetCertificate())
		if err != nil {
			return nil, fmt.Errorf("wanted state refused: leaf for %q: %w", l.GetName(), err)
		}
		out = append(out, leaf{host: l.GetName(), cert: cert, next: l.GetNext()})
	}
	return out, nil
}

// servedOf are the leaves that are served now.
func servedOf(leaves []leaf) []leaf {
	return slices.DeleteFunc(slices.Clone(leaves), func(l leaf) bool { return l.next })
}

// proveFiles judges what is on disk: parts (a) to (c) of evidence. fingerprint
// is what every file has, "" when they differ or one is not right. Those aside, see
// install.Place, count for nothing.
func proveFiles(found []install.Found) (fingerprint certs.Fingerprint, problem string) {
	found = slices.DeleteFunc(slices.Clone(found), func(f install.Found) bool { return f.Aside })
	for i, f := range found {
		if f.Problem != "" && problem == "" {
			problem = f.Problem
		}
		if i == 0 {
			fingerprint = f.Fingerprint
		} else if f.Fingerprint != fingerprint {
			fingerprint = ""
		}
	}
	return fingerprint, problem
}

// proveAlone returns the roots that alone verify every leaf they issued: no
// predecessors, no other root. A root that issued none is left out.
func proveAlone(roots []*x509.Certificate, leaves []leaf, now time.Time) (solo []certs.Fingerprint, problem string) {
	for _, root := range roots {
		issued, good := 0, true
		for _, l := range leaves {
			if !certs.Issued(root, l.cert) {
				continue
			}
			issued++
			if err := certs.VerifyAlone(l.cert, root, l.host, now); err != nil {
				good = false
				if problem == "" {
					problem = fmt.Sprintf("%q does not verify the certificate for %s: %v", root.Subject.CommonName, l.host, err)
				}
			}
		}
		if issued > 0 && good {
			solo = append(solo, certs.FingerprintOf(root))
		}
	}
	return solo, problem
}

// shake makes part (d) of evidence: a handshake with the edge for each name,
// with the worst outcome of all. next asks for the future chain. fallback is
// dialled when a name does not resolve.
func (a *membership) shake(ctx context.Context, names []certs.Name, leaves []leaf, roots []*x509.Certificate, next bool, fallback string) (certs.Outcome, string) {
	worst, why := certs.NotTried, ""
	for _, n := range names {
		i := slices.IndexFunc(leaves, func(l leaf) bool { return l.next == next && l.host == n.Host })
		if i < 0 {
			continue
		}
		outcome, problem := a.shakeOne(ctx, n, leaves[i].cert, roots, next, fallback)
		if rank(outcome) > rank(worst) {
			worst, why = outcome, problem
		}
	}
	return worst, why
}

// rank orders outcomes from good to bad.
func rank(o certs.Outcome) int {
	return slices.Index([]certs.Outcome{certs.NotTried, certs.OK, certs.Unresolved, certs.Unreachable, certs.Intercepted, certs.Refused}, o)
}

func (a *membership) shakeOne(ctx context.Context, n certs.Name, expected *x509.Certificate, roots []*x509.Certificate, next bool, fallback string) (certs.Outcome, string) {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	conn, err := a.cfg.Dial(ctx, "tcp", net.JoinHostPort(n.Host, strconv.Itoa(n.Port)))
	unresolved := false
	if dns := new(net.DNSError); errors.As(err, &dns) && fallback != "" {
		unresolved = true
		if conn, err = a.cfg.Dial(ctx, "tcp", fallback); err != nil {
			conn, err = a.cfg.Dial(ctx, "tcp", a.besideServer(fallback))
		}
	}
	switch {
	case err != nil && unresolved:
		return certs.Unresolved, fmt.Sprintf("%s does not resolve here, and %s does not answer: %v", n.Host, fallback, err)
	case err != nil:
		return certs.Unreachable, fmt.Sprintf("registry %s cannot be reached: %v", n, err)
	}
	defer func() { _ = conn.Close() }() // only the handshake counts
	// The certificate is judged below, against exactly what it is compared
	// with; tls alone could not tell refused from intercepted.
	cfg := &tls.Config{ServerName: n.Host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, CurvePreferences: exchanges} //nolint:gosec // verified below
	if next {
		cfg.NextProtos = []string{nextProtocol}
	}
	client := tls.Client(conn, cfg)
	if err := client.HandshakeContext(ctx); err != nil {
		return certs.Unreachable, fmt.Sprintf("no TLS with registry %s: %v", n, err)
	}
	state := client.ConnectionState()
	if next && state.NegotiatedProtocol != nextProtocol {
		return certs.Intercepted, fmt.Sprintf("registry %s does not know %s: something else answers on its port", n, nextProtocol)
	}
	return judge(n, state.PeerCertificates, expected, roots, a.cfg.Now())
}

// besideServer is the registry's port at the address through which this host
// reaches its server.
func (a *membership) besideServer(registry string) string {
	host, _, err1 := net.SplitHostPort(a.enrolment.Server)
	_, port, err2 := net.SplitHostPort(registry)
	if errors.Join(err1, err2) != nil {
		return registry
	}
	return net.JoinHostPort(host, port)
}

// judge compares what was shown with what Sync announced.
func judge(n certs.Name, shown []*x509.Certificate, expected *x509.Certificate, roots []*x509.Certificate, now time.Time) (certs.Outcome, string) {
	if len(shown) == 0 || !bytes.Equal(shown[0].Raw, expected.Raw) {
		return certs.Intercepted, fmt.Sprintf("registry %s shows another certificate than the server announced: is there a proxy in between?", n)
	}
	if err := certs.VerifyServed(shown, roots, n.Host, now); err != nil {
		return certs.Refused, fmt.Sprintf("the certificate of %s does not verify here: %v", n, err)
	}
	return certs.OK, ""
}

// firstOf returns the first that is not empty.
func firstOf(texts ...string) string {
	for _, t := range texts {
		if strings.TrimSpace(t) != "" {
			return t
		}
	}
	return ""
}
