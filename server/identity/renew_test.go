package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

const (
	hour = time.Hour
	year = 365 * 24 * hour
)

// live renews what is due every hour of a time.
func live(t *testing.T, i *Identity, from, to time.Time, every time.Duration) {
	t.Helper()
	for now := from; now.Before(to); now = now.Add(every) {
		if err := i.renewDue(now); err != nil {
			t.Fatal(err)
		}
	}
}

func TestControlCAIsReissuedAtHalf(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	i := d.open()
	first := i.ca
	live(t, i, start, start.Add(5*year-24*hour), 30*24*hour)
	if !i.ca.Equal(first) || d.told != 0 {
		t.Fatal("re-issued before half of its life")
	}
	at := start.Add(5*year + year/2 + 24*hour) // half and the spread
	if err := i.renewDue(at); err != nil {
		t.Fatal(err)
	}
	switch next := i.ca; {
	case next.Equal(first) || d.told != 1:
		t.Fatalf("not re-issued, or not announced (%d times)", d.told)
	case certs.Pin(next) != certs.Pin(first):
		t.Error("another key: agents would refuse it")
	case string(next.RawSubject) != string(first.RawSubject) || !next.NotBefore.Equal(first.NotBefore):
		t.Error("another subject or beginning: old identities would not verify")
	case !next.NotAfter.After(first.NotAfter.Add(5 * year)):
		t.Errorf("it ends on %s already", next.NotAfter)
	}
	i = d.open() // a crash after it was recorded
	if i.ca.Equal(first) {
		t.Error("not durable")
	}
	if shown := i.server.Certificate[1]; string(shown) != string(i.ca.Raw) {
		t.Error("the server shows another CA than it has")
	}
	if err := i.renewDue(at.Add(hour)); err != nil || d.told != 1 {
		t.Errorf("re-issued again an hour later (%d times, %v)", d.told, err)
	}
}

// TestIdentityOfBeforeReissuingRenews: an identity that ended before the new
// certificate of the CA was made is still known by its key.
func TestIdentityOfBeforeReissuingRenews(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{ControlLife: year, Log: slog.New(slog.DiscardHandler)})
	i := d.open()
	key := newKey(t)
	secret, _, err := i.CreateToken(TokenOptions{}, start)
	if err != nil {
		t.Fatal(err)
	}
	_, der, _, err := i.Enroll(Enrollment{TokenID: secret.ID, Secret: secret.Secret, CSR: newCSR(t, key), Name: "web-1"}, start)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	first := i.ca
	later := start.Add(400 * 24 * hour) // the first certificate has ended too, the identity 310 days ago
	live(t, i, start, later, 24*hour)
	if i.ca.Equal(first) || !later.After(first.NotAfter) {
		t.Fatal("the CA was not re-issued: nothing is tested")
	}
	if _, err := i.Authenticate(cert, later, false); !errors.Is(err, ErrExpired) {
		t.Errorf("an ended identity calls: %v", err)
	}
	h, err := i.Authenticate(cert, later, true)
	if err != nil {
		t.Fatalf("an ended identity renews: %v", err)
	}
	if _, err := i.Renew(h.ID, newCSR(t, newKey(t)), later); err != nil {
		t.Errorf("renew: %v", err)
	}
	if _, err := i.Authenticate(cert, cert.NotAfter.Add(year+hour), true); !errors.Is(err, ErrExpired) {
		t.Errorf("renews after more than a year: %v", err)
	}
}

func TestServerIdentityIsRenewed(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, life := range []time.Duration{30 * 24 * hour, hour, time.Minute} {
		d := newDirectory(t, start, Config{ServerLife: life, Log: slog.New(slog.DiscardHandler)})
		i := d.open()
		first := i.server.Leaf
		if err := i.renewDue(start.Add(life * 65 / 100)); err != nil || !i.server.Leaf.Equal(first) {
			t.Errorf("life of %s: renewed before two thirds (%v)", life, err)
		}
		if wait, left := i.untilDue(start), life*72/100; wait <= 0 || wait > min(left, lookMost) {
			t.Errorf("life of %s: looks again after %s", life, wait)
		}
		if err := i.renewDue(start.Add(life * 72 / 100)); err != nil || i.server.Leaf.Equal(first) {
			t.Errorf("life of %s: not renewed after two thirds and the spread (%v)", life, err)
		}
	}
}

// TestShorterServerLifeCountsAtOnce: what init made with the default is renewed
// as the server is told now.
func TestShorterServerLifeCountsAtOnce(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	d.cfg.ServerLife = hour
	i := d.open()
	first := i.server.Leaf
	if err := i.renewDue(start.Add(30 * time.Minute)); err != nil || !i.server.Leaf.Equal(first) {
		t.Errorf("renewed too early (%v)", err)
	}
	if err := i.renewDue(start.Add(45 * time.Minute)); err != nil || i.server.Leaf.Equal(first) {
		t.Errorf("not renewed (%v)", err)
	}
}

// TestClockThatWasAhead: what was made while the clock was ahead is made again
// once the clock is right, since nobody would take it.
func TestClockThatWasAhead(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	i := d.open()
	if err := i.renewDue(start.Add(year)); err != nil {
		t.Fatal(err)
	}
	if !start.Add(hour).Before(i.server.Leaf.NotBefore) {
		t.Fatal("the clock was not ahead: nothing is tested")
	}
	if err := i.renewDue(start.Add(hour)); err != nil {
		t.Fatal(err)
	}
	if leaf := i.server.Leaf; start.Add(hour).Before(leaf.NotBefore) || start.Add(hour).After(leaf.NotAfter) {
		t.Errorf("the server's identity is good from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
}

// TestFirstUseReplacesTheKey: a renewed key counts beside the one before it until
// it is used, and alone from then on, also after a restart.
func TestFirstUseReplacesTheKey(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	old := joined(t, d.open(), "web-1", start)
	i := d.open()
	key := newKey(t)
	der, err := i.Renew(old.id, newCSR(t, key), start.Add(hour))
	if err != nil {
		t.Fatal(err)
	}
	next := member{id: old.id, key: key}
	if next.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	now := start.Add(2 * hour)
	if err := old.is(d.open(), now); err != nil {
		t.Fatalf("the reply may be lost, and the old key is refused: %v", err)
	}
	if err := next.is(d.open(), now); err != nil {
		t.Fatalf("the new key: %v", err)
	}
	i = d.open()
	if err := old.is(i, now); !errors.Is(err, ErrUnknown) {
		t.Errorf("the old key after the first use of the new one: %v", err)
	}
	if err := next.is(i, now); err != nil {
		t.Errorf("the new key once more: %v", err)
	}
}
