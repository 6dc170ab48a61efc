package security

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// impostor is a chain to show, and the key of its first certificate.
type impostor struct {
	name  string
	key   *ecdsa.PrivateKey
	chain []*x509.Certificate
	says  string // what the agent says of it
}

// impostors are servers that are not the one whose CA is pinned.
func impostors(t *testing.T, w *world) []impostor {
	t.Helper()
	real, foreign, host := w.steal(), newControlCA(t), w.rawHost("stolen")
	key := newKey(t)
	server := forged{fleet: real.fleet, path: "/server", usage: x509.ExtKeyUsageServerAuth}
	with := func(change func(*forged)) forged {
		f := server
		change(&f)
		return f
	}
	of := func(name, says string, by pair, f forged, more ...*x509.Certificate) impostor {
		return impostor{name, key, append([]*x509.Certificate{by.forge(t, key, f).cert}, more...), says}
	}
	return []impostor{
		of("a CA of its own", "", foreign, server, foreign.cert),
		of("the pinned CA merely shown", "", foreign, server, foreign.cert, real.ca.cert),
		of("the pinned CA shown before the real issuer", "", foreign, server, real.ca.cert, foreign.cert),
		{"a host's identity", host.key, []*x509.Certificate{host.cert, real.ca.cert}, ""},
		of("signed by a host's identity", "", host.pair, server, host.cert, real.ca.cert),
		of("a host's name, for serving", "", real.ca, with(func(f *forged) { f.path = "/host/" + host.id }), real.ca.cert),
		of("the server's name, for clients", "", real.ca, with(func(f *forged) { f.usage = x509.ExtKeyUsageClientAuth }), real.ca.cert),
		of("expired", "", real.ca, with(func(f *forged) {
			f.notBefore, f.notAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), real.ca.cert),
	}
}

// TestWrongPinNeverSeesTheSecret: a joining agent says nothing at all to a server
// that the pinned CA has not signed.
func TestWrongPinNeverSeesTheSecret(t *testing.T) {
	t.Parallel()
	w := start(t)
	token := w.token(&pb.CreateTokenRequest{})
	parsed, err := certs.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, impostor := range impostors(t, w) {
		t.Run(impostor.name, func(t *testing.T) {
			e := w.evilServer(loot{}, impostor.key, impostor.chain...)
			m := w.machine("joining-" + strings.ReplaceAll(impostor.name, " ", "-"))
			m.cfg.Server, m.cfg.Token = evilAddress, token
			_, err := agent.Join(t.Context(), m.cfg)
			if err == nil || !strings.Contains(err.Error(), "secret was not sent") {
				t.Errorf("the agent says: %v", err)
			}
			heard, secrets, handshakes := e.learned()
			if handshakes == 0 {
				t.Error("nobody came: nothing was shown")
			}
			if len(heard) > 0 || len(secrets) > 0 {
				t.Errorf("it heard %d bytes, the secret among them: %v", len(heard), bytes.Contains(heard, parsed.Secret))
			}
			if _, err := os.Stat(filepath.Join(m.cfg.DataDir, "identity.json")); err == nil {
				t.Error("the agent has an identity now")
			}
			if files := m.trust(); len(files) > 0 {
				t.Errorf("the agent installed %v", files)
			}
		})
	}
	t.Run("honest: the server's own identity", func(t *testing.T) {
		real := w.steal()
		e := w.evilServer(real, real.server.key, real.server.cert, real.ca.cert)
		m := w.machine("joining")
		m.cfg.Server, m.cfg.Token = evilAddress, token
		m.start()
		until(t, "the secret arrives", func() bool {
			heard, secrets, _ := e.learned()
			return len(secrets) == 1 && bytes.Equal(secrets[0], parsed.Secret) && bytes.Contains(heard, parsed.Secret)
		})
	})
}

// TestAgentObeysItsServerOnly: an enrolled agent tells an impostor nothing, keeps
// what it has and says why.
func TestAgentObeysItsServerOnly(t *testing.T) {
	t.Parallel()
	w := start(t)
	m := w.join("web")
	m.stop()
	before := m.trust()
	real := w.steal()
	stranger := real.ca.forge(t, newKey(t), forged{fleet: "00112233445566778899aabbccddeeff", path: "/server", usage: x509.ExtKeyUsageServerAuth})
	all := append(impostors(t, w), impostor{"the server of another fleet", stranger.key, []*x509.Certificate{stranger.cert, real.ca.cert}, "it is of fleet"})
	m.cfg.Server = evilAddress
	for _, impostor := range all {
		t.Run(impostor.name, func(t *testing.T) {
			e := w.evilServer(loot{}, impostor.key, impostor.chain...)
			m.start()
			t.Cleanup(m.stop)
			until(t, "the agent says why", func() bool {
				problem := m.status().Problem
				return strings.Contains(problem, "is not this host's server") && strings.Contains(problem, "run `trustcast-agent leave`, then join") && strings.Contains(problem, impostor.says)
			})
			m.stop()
			heard, _, handshakes := e.learned()
			if handshakes == 0 || len(heard) > 0 {
				t.Errorf("%d handshakes, %d bytes heard", handshakes, len(heard))
			}
			same(t, before, m.trust())
		})
	}
	t.Run("honest: the server's own identity", func(t *testing.T) {
		e := w.evilServer(real, real.server.key, real.server.cert, real.ca.cert)
		m.start()
		until(t, "it reports", func() bool { return e.reported() != nil })
		m.stop()
	})
}

// same fails when files differ in a byte.
func same(t *testing.T, before, after map[string]string) {
	t.Helper()
	if len(before) != len(after) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	for path, content := range before {
		if after[path] != content {
			t.Errorf("%s was %d bytes and is %d others", path, len(content), len(after[path]))
		}
	}
}
