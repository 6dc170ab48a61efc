package identity

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// TestStreamIsJudgedEachTime: the signature of a stream's certificate is checked once,
// what can change is not.
func TestStreamIsJudgedEachTime(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)})
	i := d.open()
	foreign := newDirectory(t, start, Config{Log: slog.New(slog.DiscardHandler)}).open()
	stranger := &Bearer{Cert: joined(t, foreign, "web-1", start).cert}
	m := joined(t, i, "web-1", start)
	b := &Bearer{Cert: m.cert}
	for range 2 {
		if h, err := i.AuthenticateAgain(b, start); err != nil || h.ID != m.id {
			t.Fatalf("%+v, %v", h, err)
		}
		if _, err := i.AuthenticateAgain(stranger, start); !errors.Is(err, ErrUnknown) {
			t.Errorf("a host of another fleet: %v", err)
		}
		if _, err := i.AuthenticateAgain(&Bearer{}, start); !errors.Is(err, ErrUnknown) {
			t.Errorf("without a certificate: %v", err)
		}
	}
	if b.signer == nil {
		t.Fatal("the signature is checked each time: nothing is tested")
	}
	if _, err := i.AuthenticateAgain(b, m.cert.NotAfter.Add(time.Second)); !errors.Is(err, ErrExpired) {
		t.Errorf("an ended identity: %v", err)
	}
	newer := m.renewed(t, i, start)
	if _, err := i.AuthenticateAgain(b, start); !errors.Is(err, ErrUnknown) {
		t.Errorf("a key that was replaced: %v", err)
	}
	b = &Bearer{Cert: newer.cert}
	if _, err := i.AuthenticateAgain(b, start); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Remove("web-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := i.AuthenticateAgain(b, start); !errors.Is(err, ErrRemoved) {
		t.Errorf("a removed host: %v", err)
	}
}
