package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"
)

// member is a host with its newest identity.
type member struct {
	id   string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func (m member) is(i *Identity, now time.Time) error {
	_, err := i.Authenticate(m.cert, now, false)
	return err
}

func joined(t *testing.T, i *Identity, name string, now time.Time) member {
	t.Helper()
	secret, _, err := i.CreateToken(TokenOptions{Host: name}, now)
	if err != nil {
		t.Fatal(err)
	}
	m := member{key: newKey(t)}
	h, der, _, err := i.Enroll(Enrollment{TokenID: secret.ID, Secret: secret.Secret, CSR: newCSR(t, m.key), Name: name}, now)
	if err != nil {
		t.Fatal(err)
	}
	m.id = h.ID
	if m.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m member) renewed(t *testing.T, i *Identity, now time.Time) member {
	t.Helper()
	m.key = newKey(t)
	der, err := i.Renew(m.id, newCSR(t, m.key), now)
	if err != nil {
		t.Fatal(err)
	}
	if m.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := m.is(i, now); err != nil { // its first use makes it the only key
		t.Fatal(err)
	}
	return m
}

// TestRestoreAdopts: after a restore, whoever joined or renewed after the backup is
// known again; who was replaced or removed by then is not, and nobody is when the
// server was not restored.
func TestRestoreAdopts(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	i := d.open()
	old, steady, gone := joined(t, i, "web-1", start), joined(t, i, "web-2", start), joined(t, i, "web-4", start)
	if _, err := i.Remove("web-4"); err != nil {
		t.Fatal(err)
	}
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(d.dir)); err != nil {
		t.Fatal(err)
	}
	later := start.Add(24 * time.Hour)
	renewed := steady.renewed(t, i, later)
	reinstalled, fresh := joined(t, i, "web-1", later), joined(t, i, "web-3", later)
	now := start.Add(48 * time.Hour)

	d.dir = backup // an old copy, started without a restore
	for name, m := range map[string]member{"renewed": renewed, "reinstalled": reinstalled, "fresh": fresh} {
		if err := m.is(d.open(), now); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s on a copy that was not restored: %v", name, err)
		}
	}
	before := d.open().Ring()
	d.reopen()
	if err := Restore(d.cfg.Records, start.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	i = d.open()
	for name, m := range map[string]member{"renewed": renewed, "reinstalled": reinstalled, "fresh": fresh} {
		if err := m.is(i, now); err != nil {
			t.Errorf("%s is not adopted: %v", name, err)
		}
	}
	for name, m := range map[string]member{"replaced": old, "removed": gone} {
		if err := m.is(i, now); !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := steady.is(i, now); !errors.Is(err, ErrUnknown) {
		t.Errorf("a key that was replaced after the backup: %v", err)
	}
	if err := fresh.is(d.open(), now); err != nil {
		t.Errorf("adopted, but not durably: %v", err)
	}
	after := i.Ring()
	if bytes.Equal(after.Keys[0], before.Keys[0]) || len(after.Keys) != 1 || after.Version < uint64(now.Unix()) {
		t.Errorf("the gossip ring was %s, is %s", before.show(), after.show())
	}
	tokens, err := i.Tokens(now)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		if token.State == "valid" {
			t.Errorf("token %s is valid still", token.ID)
		}
	}
}

// TestRemovedAfterARestoreStaysOut: whom the operator removes when reviewing a
// restored fleet does not come back with a key of after the backup.
func TestRemovedAfterARestoreStaysOut(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	i := d.open()
	kept, removed := joined(t, i, "web-1", start), joined(t, i, "web-2", start)
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(d.dir)); err != nil {
		t.Fatal(err)
	}
	later := start.Add(24 * time.Hour)
	kept, removed = kept.renewed(t, i, later), removed.renewed(t, i, later)
	d.dir = backup
	d.reopen()
	if err := Restore(d.cfg.Records, start.Add(time.Hour), later); err != nil {
		t.Fatal(err)
	}
	i = d.open()
	if _, err := i.Remove("web-2"); err != nil {
		t.Fatal(err)
	}
	if err := removed.is(i, later); !errors.Is(err, ErrRemoved) {
		t.Errorf("removed: %v", err)
	}
	if err := kept.is(i, later); err != nil {
		t.Errorf("not removed: %v", err)
	}
}

// TestRestoreRevokesTokens: a token of the backup lets nobody in any more.
func TestRestoreRevokesTokens(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := newDirectory(t, now, Config{Log: slog.New(slog.DiscardHandler)})
	secret, _, err := d.open().CreateToken(TokenOptions{Expires: -1}, now)
	if err != nil {
		t.Fatal(err)
	}
	join := func(name string) error {
		_, _, _, err := d.open().Enroll(Enrollment{TokenID: secret.ID, Secret: secret.Secret, CSR: newCSR(t, newKey(t)), Name: name}, now)
		return err
	}
	if err := join("web-1"); err != nil {
		t.Fatal(err)
	}
	d.reopen()
	if err := Restore(d.cfg.Records, now, now); err != nil {
		t.Fatal(err)
	}
	if err := join("web-2"); !errors.Is(err, ErrToken) {
		t.Errorf("joined with a token of before the restore: %v", err)
	}
}

// TestAdoptionEvictsNobodyNewer: who was replaced between the backup and the restore
// does not come back over who replaced it, in whichever order they come.
func TestAdoptionEvictsNobodyNewer(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(d.dir)); err != nil {
		t.Fatal(err)
	}
	i := d.open()
	stolen := joined(t, i, "web-1", start.Add(time.Hour))
	newer := joined(t, i, "web-1", start.Add(2*time.Hour))
	now := start.Add(3 * time.Hour)
	for _, stolenFirst := range []bool{true, false} {
		d.dir = t.TempDir()
		if err := os.CopyFS(d.dir, os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
		d.reopen()
		if err := Restore(d.cfg.Records, start, now); err != nil {
			t.Fatal(err)
		}
		i := d.open()
		if stolenFirst {
			if err := stolen.is(i, now); err != nil {
				t.Fatalf("nobody knows yet that it was replaced: %v", err)
			}
		}
		if err := newer.is(i, now); err != nil {
			t.Fatalf("the newer one: %v", err)
		}
		if err := stolen.is(i, now); !errors.Is(err, ErrRemoved) {
			t.Errorf("first %v: the one that was replaced: %v", stolenFirst, err)
		}
		if err := newer.is(i, now); err != nil {
			t.Errorf("first %v: the newer one was evicted: %v", stolenFirst, err)
		}
		if again := i.Ring().Again; again != stolenFirst {
			t.Errorf("first %v: a roll follows: %v", stolenFirst, again)
		}
	}
}

// TestAdoptionReachesThroughRestores: who joined before a restore and was not met
// before the next backup is known again after that one, too.
func TestAdoptionReachesThroughRestores(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(d.dir)); err != nil {
		t.Fatal(err)
	}
	fresh := joined(t, d.open(), "web-1", start.Add(time.Hour))
	d.dir = backup
	for i, made := range []time.Time{start, start.Add(3 * time.Hour)} {
		d.reopen()
		if err := Restore(d.cfg.Records, made, start.Add(time.Duration(2+2*i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := fresh.is(d.open(), start.Add(5*time.Hour)); err != nil {
		t.Errorf("not adopted after the second restore: %v", err)
	}
}
