package authority

import (
	"crypto/tls"
	"fmt"
	"time"
)

// publish gives the edge what the record says, if it has not got it yet. A
// future chain that the edge refuses is left out, which holds the switch; what
// is served now goes on.
func (a *Authority) publish() error {
	r := a.rec.Rotation
	if a.published == r.Rev {
		return nil
	}
	if r.Restored { // hosts are told, but nothing is served yet
		a.published = r.Rev
		a.cfg.Announce()
		return nil
	}
	current, err := a.rec.pairs(a.cfg.Keys, r.Active, servedLinks(r.Chain))
	if err != nil {
		return err
	}
	serving := Serving{Active: r.Active, Chain: r.Chain}
	var next map[string]*tls.Certificate
	if r.Phase == Staged && !r.Rollback {
		if next, err = a.rec.pairs(a.cfg.Keys, r.Other, servedLinks(r.OtherChain)); err != nil {
			return err
		}
		serving.Next = r.Other
	}
	err = a.cfg.Publish(current, next)
	if err != nil && next != nil {
		a.cfg.Log.Error("the edge refuses the next certificates; the rotation is held", "rotation", r.Number, "err", err)
		serving.Next = 0
		err = a.cfg.Publish(current, nil)
	}
	if err != nil {
		return fmt.Errorf("the edge refuses the certificates of revision %d: %w", r.Rev, err)
	}
	a.serving, a.published = serving, r.Rev
	a.cfg.Announce()
	return nil
}

// servedLinks is chain itself but for the fault that serves a leaf alone.
func servedLinks(chain []Link) []Link {
	if faulty("no-predecessors") {
		return nil
	}
	return chain
}

// Publish has the edge serve the record now, before the first client or the answer to
// an operator; Run does it after each change. Leaves that ended while the server was off are renewed
// first, since the edge refuses ended ones.
func (a *Authority) Publish() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	due, err := a.leavesDue(a.rec.Rotation.Active, now)
	if err != nil {
		return err
	}
	if due {
		if err := a.renewLeaves(a.rec.Rotation.Active, now); err != nil {
			return err
		}
	}
	return a.publish()
}

// UnderWay says whether hosts are waited for: a rotation is between its start and
// its end, or the server was restored and is not open yet.
func (a *Authority) UnderWay() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec.Rotation.Phase != Idle || a.rec.Rotation.Restored
}

// Settled says whether the edge serves what the record says.
func (a *Authority) Settled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.published == a.rec.Rotation.Rev && !a.rec.Rotation.Restored
}
