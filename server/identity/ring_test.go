package identity

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/server/records"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, gossipKeySize) }

// show is a ring as people would write it: a version, a step, the first letter of
// each key.
func (r Ring) show() string {
	var keys []string
	for _, k := range r.Keys {
		keys = append(keys, fmt.Sprintf("%c", k[0]))
	}
	again := ""
	if r.Again {
		again = " again"
	}
	return fmt.Sprintf("%d %s %s%s", r.Version, r.Step(), strings.Join(keys, ","), again)
}

func TestRingRolls(t *testing.T) {
	t.Parallel()
	const patience = 10 * time.Minute
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	ring := Ring{Keys: [][]byte{key('a')}}
	for _, step := range []struct {
		what string
		do   func(Ring) Ring
		want string
	}{
		{"nothing to do", func(r Ring) Ring { return r.Advance(true, patience, now) }, "0 idle a"},
		{"rolled", func(r Ring) Ring { return r.Roll(key('b'), now) }, "1 installing a,b"},
		{"not acknowledged", func(r Ring) Ring { return r.Advance(false, patience, now.Add(patience-1)) }, "1 installing a,b"},
		{"acknowledged", func(r Ring) Ring { return r.Advance(true, patience, now) }, "2 using b,a"},
		{"not acknowledged yet", func(r Ring) Ring { return r.Advance(false, patience, now.Add(patience-1)) }, "2 using b,a"},
		{"rolled meanwhile", func(r Ring) Ring { return r.Roll(key('c'), now) }, "2 using b,a again"},
		{"its time is up", func(r Ring) Ring { return r.Advance(false, patience, now.Add(patience)) }, "3 removing b again"},
		{"the time counts from each step", func(r Ring) Ring { return r.Advance(false, patience, now.Add(patience)) }, "3 removing b again"},
		{"acknowledged", func(r Ring) Ring { return r.Advance(true, patience, now) }, "4 idle b again"},
		{"once more", func(r Ring) Ring { return r.Roll(key('d'), now) }, "5 installing b,d"},
	} {
		before := ring.show()
		next := step.do(ring)
		if ring.show() != before {
			t.Errorf("%s: the value was changed in place, to %s", step.what, ring.show())
		}
		if ring = next; ring.show() != step.want {
			t.Fatalf("%s: %s, want %s", step.what, ring.show(), step.want)
		}
		if err := ring.check(); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
}

func TestDamagedRingsAreRefused(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Ring{
		"no key":        {},
		"a short key":   {Keys: [][]byte{key('a')[:16]}},
		"two keys":      {Keys: [][]byte{key('a'), key('b')}},
		"one key":       {Keys: [][]byte{key('a')}, Stage: RingUsing},
		"twice one key": {Keys: [][]byte{key('a'), key('a')}, Stage: RingInstalling},
		"no such step":  {Keys: [][]byte{key('a')}, Stage: "resting"},
	} {
		if r.check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// directory is a control CA's records and keys on disk.
type directory struct {
	t    *testing.T
	dir  string
	cfg  Config
	told int // how often the re-issued CA was announced
}

func newDirectory(t *testing.T, now time.Time, lives Config) *directory {
	t.Helper()
	d := &directory{t: t, dir: t.TempDir(), cfg: lives}
	d.cfg.Reissued = func() { d.told++ }
	d.reopen()
	if _, err := Create(d.cfg, now); err != nil {
		t.Fatal(err)
	}
	return d
}

// reopen reads what is on disk, as a start does.
func (d *directory) reopen() {
	d.t.Helper()
	var err error
	if d.cfg.Keys, err = records.OpenKeys(d.dir + "/keys"); err != nil {
		d.t.Fatal(err)
	}
	if d.cfg.Records, err = records.Open(d.dir); err != nil {
		d.t.Fatal(err)
	}
}

func (d *directory) open() *Identity {
	d.t.Helper()
	d.reopen()
	i, err := Open(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return i
}

func TestRingIsDurable(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := newDirectory(t, now, Config{})
	i := d.open()
	first := i.Ring().Keys[0]
	if r, err := i.RollRing(now); err != nil || r.Step() != RingInstalling {
		t.Fatalf("roll: %v, %v", r.Step(), err)
	}
	if r, _ := i.AdvanceRing(0, true, time.Minute, now); r.Version != 1 {
		t.Errorf("an acknowledgement of an older ring moved it to %d", r.Version)
	}
	for _, want := range []RingStep{RingUsing, RingRemoving, RingIdle} {
		i = d.open() // a crash after each step
		ring := i.Ring()
		ring, err := i.AdvanceRing(ring.Version, true, time.Minute, now)
		if err != nil || ring.Step() != want {
			t.Fatalf("%v, %v, want %s", ring.Step(), err, want)
		}
	}
	if r := d.open().Ring(); r.Version != 4 || len(r.Keys) != 1 || bytes.Equal(r.Keys[0], first) {
		t.Errorf("at the end: version %d, %d keys, the old one: %v", r.Version, len(r.Keys), bytes.Equal(r.Keys[0], first))
	}
}

// TestOldRecordOpens: a record of before rolls and re-issuing has neither.
func TestOldRecordOpens(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := newDirectory(t, now, Config{})
	var old struct {
		FleetID    string        `json:"fleet_id"`
		CA         []byte        `json:"ca"`
		CAKey      records.KeyID `json:"ca_key"`
		Server     []byte        `json:"server"`
		ServerKey  records.KeyID `json:"server_key"`
		ServerMade time.Time     `json:"server_made"`
		GossipKeys [][]byte      `json:"gossip_keys"`
	}
	i := d.open()
	c := i.control
	old.FleetID, old.CA, old.CAKey, old.Server, old.ServerKey, old.ServerMade, old.GossipKeys = c.FleetID, c.CA, c.CAKey, c.Server, c.ServerKey, c.ServerMade, c.Keys
	if _, err := d.cfg.Records.Put(recordName, i.rev, old); err != nil {
		t.Fatal(err)
	}
	i = d.open()
	if r := i.Ring(); r.Version != 0 || r.Step() != RingIdle || len(r.Keys) != 1 {
		t.Errorf("the ring of an old record: %s", r.show())
	}
	if ca, _ := i.Lives(); ca.Made.Sub(now).Abs() > time.Minute {
		t.Errorf("the CA of an old record was made at %s, want %s", ca.Made, now)
	}
}

// enrol makes a host with a token for its name, which replaces one of that name.
func enrol(t *testing.T, i *Identity, name string, now time.Time) (Host, string) {
	t.Helper()
	secret, _, err := i.CreateToken(TokenOptions{Host: name}, now)
	if err != nil {
		t.Fatal(err)
	}
	h, _, revoked, err := i.Enroll(Enrollment{TokenID: secret.ID, Secret: secret.Secret, CSR: newCSR(t, newKey(t)), Name: name}, now)
	if err != nil {
		t.Fatal(err)
	}
	return h, revoked
}

// TestLockingOutIsRemembered: that a roll must follow is durable with the removal
// of a host, whatever happens next.
func TestLockingOutIsRemembered(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := newDirectory(t, now, Config{})
	i := d.open()
	first, _ := enrol(t, i, "web-1", now)
	if d.open().Ring().Again {
		t.Fatal("a host that joins asks for a roll")
	}
	i = d.open()
	if _, revoked := enrol(t, i, "web-1", now); revoked != first.ID {
		t.Fatalf("the new web-1 revoked %q", revoked)
	}
	if i = d.open(); !i.Ring().Again {
		t.Error("a host was replaced and no roll follows")
	}
	if r, err := i.RollRing(now); err != nil || r.Again {
		t.Fatalf("again %v, %v", r.Again, err)
	}
	if _, err := i.Remove("web-1"); err != nil { // it may know the key being installed
		t.Fatal(err)
	}
	if r := d.open().Ring(); !r.Again || r.Step() != RingInstalling {
		t.Errorf("removed in a roll: %s, and another must follow", r.show())
	}
	if _, err := d.open().Remove("web-9"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown host: %v", err)
	}
}

func TestRevokeTokens(t *testing.T) {
	t.Parallel()
	now := time.Now()
	i := newDirectory(t, now, Config{}).open()
	enrol(t, i, "web-1", now) // used up
	for range 3 {
		if _, _, err := i.CreateToken(TokenOptions{Expires: -1}, now); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := i.RevokeTokens(); n != 3 || err != nil {
		t.Errorf("revoked %d, %v; want 3", n, err)
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
	if n, err := i.RevokeTokens(); n != 0 || err != nil {
		t.Errorf("revoked %d more, %v", n, err)
	}
}
