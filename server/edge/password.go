package edge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

type digest [sha256.Size]byte

// mac is reused, since every request makes a digest.
type mac struct {
	hash.Hash
	input []byte
}

func newMACs(key []byte) *sync.Pool {
	return &sync.Pool{New: func() any { return &mac{Hash: hmac.New(sha256.New, key)} }}
}

// digest covers each part with its length, so that no two triples look alike.
func (s *signIn) digest(user, password string, hash []byte) (d digest) {
	m := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	in := m.input[:0]
	in = append(binary.BigEndian.AppendUint64(in, uint64(len(user))), user...)
	in = append(binary.BigEndian.AppendUint64(in, uint64(len(password))), password...)
	in = append(binary.BigEndian.AppendUint64(in, uint64(len(hash))), hash...)
	m.Reset()
	_, _ = m.Write(in) // a hash does not fail
	m.Sum(d[:0])
	clear(in) // no password stays behind
	m.input = in
	return d
}

// matches runs bcrypt. A wrong password for a hash cheaper than the dearest is
// checked against dummies too, or the time would tell that the user exists: one of
// each cost from its own to below the dearest, which together have as many rounds as
// the dearest has.
func (s *signIn) matches(a *claim) bool {
	err := s.compare(a.hash, []byte(a.password))
	if err == nil {
		return a.exists
	}
	if !a.exists {
		return false
	}
	dummy := s.dummy()
	dearest, err := bcrypt.Cost(dummy)
	if err != nil {
		return false
	}
	own, err := bcrypt.Cost(a.hash)
	if err != nil { // which bcrypt refused at once
		_ = s.compare(dummy, []byte(a.password)) // for its time only, as below
		return false
	}
	for cost := own; cost < dearest; cost++ {
		_ = s.compare(withCost(dummy, cost), []byte(a.password))
	}
	return false
}

// withCost is a hash with another cost in it: $2a$10$…
func withCost(hash []byte, cost int) []byte {
	return fmt.Appendf(nil, "%s%02d%s", hash[:4], cost, hash[6:])
}
