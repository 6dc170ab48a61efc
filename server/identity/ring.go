package identity

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"time"
)

// RingStep is where the replacement of the gossip key stands.
type RingStep string

// The steps of a roll, in this order. Each waits until the hosts that are
// connected have acknowledged the ring, or until its time is up.
const (
	RingIdle       RingStep = "idle"
	RingInstalling RingStep = "installing" // the new key decrypts, the old one encrypts
	RingUsing      RingStep = "using"      // the new key encrypts, the old one decrypts
	RingRemoving   RingStep = "removing"   // the old key is forgotten
)

// gossipKeySize in bytes: AES-256.
const gossipKeySize = 32

// Ring is the keys of gossip, and where their replacement stands. It is a value;
// its methods return a changed copy and share no slice that they change.
type Ring struct {
	// Version grows by one with each change of Keys or Step; 0 in records of
	// before there were rolls.
	Version uint64 `json:"gossip_version,omitempty"`
	// Keys of 32 bytes: the first encrypts, all decrypt.
	Keys [][]byte `json:"gossip_keys"`
	// Stage is the step; "" is idle.
	Stage RingStep `json:"gossip_step,omitempty"`
	// Since is when the step began.
	Since time.Time `json:"gossip_since,omitzero"`
	// Again: somebody who may know every key of the ring must be locked out, so
	// another roll begins once this one, if any, has ended.
	Again bool `json:"gossip_again,omitempty"`
}

// Step is where the ring stands.
func (r Ring) Step() RingStep {
	if r.Stage == "" {
		return RingIdle
	}
	return r.Stage
}

// Roll begins to replace the key in use by another one. While a roll is under
// way it only notes that another must follow: dropping a key half-way would
// split the members that use it already from those that do not know it yet.
func (r Ring) Roll(key []byte, now time.Time) Ring {
	if r.Step() != RingIdle {
		r.Again = true
		return r
	}
	r.Again = false
	return r.change([][]byte{r.Keys[0], key}, RingInstalling, now)
}

// Advance takes the next step of a roll when it is due: all who are waited for
// have acknowledged this version, or patience has passed since the step began.
// Otherwise, and when idle, the ring is returned as it is.
func (r Ring) Advance(acknowledged bool, patience time.Duration, now time.Time) Ring {
	if r.Step() == RingIdle || !acknowledged && now.Before(r.Since.Add(patience)) {
		return r
	}
	switch r.Step() {
	case RingInstalling:
		return r.change([][]byte{r.Keys[1], r.Keys[0]}, RingUsing, now)
	case RingUsing:
		return r.change(r.Keys[:1:1], RingRemoving, now)
	default:
		return r.change(r.Keys, RingIdle, now)
	}
}

func (r Ring) change(keys [][]byte, step RingStep, now time.Time) Ring {
	r.Version++
	r.Keys, r.Stage, r.Since = keys, step, now.UTC()
	return r
}

// Ring returns the keys that members use, and where their replacement stands.
func (i *Identity) Ring() Ring {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.control.Ring
}

// Revision grows with each change of ring, control CA or server identity.
func (i *Identity) Revision() uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.rev
}

// RollRing begins to replace the gossip key, durably, or notes that it must be
// replaced once more when a roll is under way.
func (i *Identity) RollRing(now time.Time) (Ring, error) {
	key := make([]byte, gossipKeySize)
	if _, err := rand.Read(key); err != nil {
		return Ring{}, fmt.Errorf("make gossip key: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.putRing(i.control.Roll(key, now))
}

// AdvanceRing takes the step of a roll that is due, durably; see Ring.Advance.
// It does nothing when the ring is not at a version any more.
func (i *Identity) AdvanceRing(version uint64, acknowledged bool, patience time.Duration, now time.Time) (Ring, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.control.Version != version {
		return i.control.Ring, nil
	}
	return i.putRing(i.control.Advance(acknowledged, patience, now))
}

// lockOut notes that the gossip key must be replaced; the record of who is
// removed comes after it, so that a crash between the two cannot lose the roll.
// The caller holds mu.
func (i *Identity) lockOut() error {
	r := i.control.Ring
	r.Again = true
	_, err := i.putRing(r)
	return err
}

// putRing makes a ring durable if it changed. The caller holds mu.
func (i *Identity) putRing(r Ring) (Ring, error) {
	if r.Version == i.control.Version && r.Again == i.control.Again {
		return i.control.Ring, nil
	}
	c := i.control
	c.Ring = r
	rev, err := i.cfg.Records.Put(recordName, i.rev, c)
	if err != nil {
		return i.control.Ring, fmt.Errorf("change the gossip ring: %w", err)
	}
	i.control, i.rev = c, rev
	return r, nil
}

// checkRing says why a recorded ring cannot be used, or nil.
func (r Ring) check() error {
	want := map[RingStep]int{RingIdle: 1, RingInstalling: 2, RingUsing: 2, RingRemoving: 1}[r.Step()]
	short := func(k []byte) bool { return len(k) != gossipKeySize }
	if len(r.Keys) != want || slices.ContainsFunc(r.Keys, short) || want == 2 && bytes.Equal(r.Keys[0], r.Keys[1]) {
		return fmt.Errorf("the gossip ring in the record is damaged (step %q, %d keys): restore it from a backup", r.Step(), len(r.Keys))
	}
	return nil
}
