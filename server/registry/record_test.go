package registry

import (
	"testing"

	"github.com/trustcast/trustcast/server/records"
)

func TestTheSecretIsKept(t *testing.T) {
	dir := t.TempDir()
	store, err := records.Open(dir)
	must(t, err)
	first, err := Secret(store)
	must(t, err)
	again, err := records.Open(dir)
	must(t, err)
	second, err := Secret(again)
	must(t, err)
	if len(first) < 32 || first != second {
		t.Errorf("secrets of %d and %d characters, equal: %v", len(first), len(second), first == second)
	}
}

// An image that somebody has written into the record does not stop the engine without.
func TestEmbeddedIgnoresAKeptImage(t *testing.T) {
	s := newSite(t)
	s.until("a replica serves", s.serves(1))
	s.end()
	rec, rev, err := read(s.store)
	must(t, err)
	rec.Image = "evil.example/x:1"
	_, err = s.store.Put(recordName, rev, rec)
	must(t, err)
	s.run()
	s.until("a replica serves again, or why not", func() bool { return s.serves(1)() || s.life.View().Problem != "" })
	if v := s.life.View(); v.Problem != "" || v.Image != "" || s.life.Upgraded() != "" {
		t.Errorf("%+v", v)
	}
}

// What a backup says about the image is no choice of this machine's; the rest is kept.
func TestRestoredForgetsTheImage(t *testing.T) {
	dir := t.TempDir()
	store, err := records.Open(dir)
	must(t, err)
	must(t, Restored(store)) // nothing is kept yet
	before := record{State: Paused, Image: "evil.example/x:1", From: DefaultImage, Secret: "secret"}
	_, err = store.Put(recordName, 0, before)
	must(t, err)
	for range 2 { // it may be repeated
		must(t, Restored(store))
	}
	again, err := records.Open(dir)
	must(t, err)
	got, _, err := read(again)
	must(t, err)
	if want := (record{State: Paused, Secret: "secret"}); got != want {
		t.Errorf("kept %+v, want %+v", got, want)
	}
}
