package crash

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// wholeRoll is how many versions of the ring replace one gossip key: install,
// use, remove, done.
const wholeRoll = 4

// controlRecord is the part of the control CA's record that is judged here.
type controlRecord struct {
	Value struct {
		CA        []byte
		CAKey     string   `json:"ca_key"`
		ServerKey string   `json:"server_key"`
		Version   uint64   `json:"gossip_version"`
		Keys      [][]byte `json:"gossip_keys"`
		Step      string   `json:"gossip_step"`
		Again     bool     `json:"gossip_again"`
	}
}

func (s *site) control() (rec controlRecord, err error) {
	err = readJSON(s.record("control"), &rec)
	return rec, err
}

// beginning is what a site has before anything happens to it.
type beginning struct {
	root    *x509.Certificate // of the registry
	control controlRecord
}

func (s *site) remember() error {
	rec, err := s.authority()
	if err != nil {
		return err
	}
	if s.first.root, err = certs.ParseCertificate(rec.Value.CAs[0].Cert); err != nil {
		return err
	}
	s.first.control, err = s.control()
	return err
}

// ended says whether an event has: as far as the status tells, and for a control
// CA, which it does not show, the disks.
func (s *site) ended(want outcome, st *pb.Status) bool {
	ring := st.GetGossipRing()
	rolled := ring.GetStep() == "idle" && ring.GetVersion() >= wholeRoll
	return settled(want.generation)(st) && rolled == want.rolled && (!want.reissued || s.judgeControl(want) == nil)
}

// judgeFirst: a client that has only the first CA is served, by it or through the
// predecessors, unless that CA's key was stolen.
func (s *site) judgeFirst(want outcome) error {
	_, err := s.greet(context.Background(), s.first.root)
	if !want.stolen {
		return err
	}
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		return fmt.Errorf("a client that trusts only the stolen CA must fail for that; it has %w", err)
	}
	return nil
}

// judgeTokens: the tokens are revoked iff a thief may have them.
func (s *site) judgeTokens(want outcome) error {
	token, err := certs.ParseToken(s.token)
	if err != nil {
		return err
	}
	var rec struct{ Value struct{ Revoked bool } }
	if err = readJSON(s.record("tokens/"+token.ID), &rec); err == nil && rec.Value.Revoked != want.stolen {
		err = fmt.Errorf("the token is revoked: %v", rec.Value.Revoked)
	}
	return err
}

// judgeControl: the control CA has its key and, unless it was re-issued, its
// certificate; there is one gossip key; and each host has what the server has.
func (s *site) judgeControl(want outcome) error {
	rec, err := s.control()
	if err != nil {
		return err
	}
	was, is := s.first.control.Value, rec.Value
	if bytes.Equal(was.CA, is.CA) == want.reissued || was.CAKey != is.CAKey {
		return fmt.Errorf("the control CA has the same certificate: %v; the same key: %v", bytes.Equal(was.CA, is.CA), was.CAKey == is.CAKey)
	}
	before, err := certs.ParseCertificate(was.CA)
	if err != nil {
		return err
	}
	now, err := certs.ParseCertificate(is.CA)
	if err != nil {
		return err
	}
	if certs.Pin(before) != certs.Pin(now) {
		return errors.New("the control CA has another pin")
	}
	if len(is.Keys) != 1 || is.Step != "" && is.Step != "idle" || is.Again || slices.EqualFunc(was.Keys, is.Keys, bytes.Equal) == want.rolled || is.Version%wholeRoll != 0 {
		return fmt.Errorf("the ring has %d keys at version %d, step %q, again %v; the first key: %v", len(is.Keys), is.Version, is.Step, is.Again, slices.EqualFunc(was.Keys, is.Keys, bytes.Equal))
	}
	var errs []error
	for i := range agents {
		errs = append(errs, s.judgeTaken(i, rec, want))
	}
	return errors.Join(errs...)
}

// judgeTaken: a host has the ring and the control CA of the server, and beside it
// the one before, which has not ended.
func (s *site) judgeTaken(i int, rec controlRecord, want outcome) error {
	var trusted struct {
		Gossip struct {
			Keys    [][]byte
			Version uint64
		}
	}
	if err := readJSON(filepath.Join(s.agentDir(i), "trusted.json"), &trusted); err != nil {
		return err
	}
	if g := trusted.Gossip; g.Version != rec.Value.Version || !slices.EqualFunc(g.Keys, rec.Value.Keys, bytes.Equal) {
		return fmt.Errorf("%s has %d gossip keys of version %d, the server has version %d", hostName(i), len(g.Keys), g.Version, rec.Value.Version)
	}
	var identity struct {
		ControlCAs [][]byte `json:"control_cas"`
	}
	if err := readJSON(filepath.Join(s.agentDir(i), "identity.json"), &identity); err != nil {
		return err
	}
	cas := [][]byte{rec.Value.CA}
	if want.reissued {
		cas = append(cas, s.first.control.Value.CA)
	}
	if !slices.EqualFunc(identity.ControlCAs, cas, bytes.Equal) {
		return fmt.Errorf("%s has %d control CAs, want %d, the server's first", hostName(i), len(identity.ControlCAs), len(cas))
	}
	return nil
}

// judgeFleet: what is on record of each host is no more than it has had.
func (s *site) judgeFleet(st *pb.Status, want outcome) error {
	var errs []error
	for _, h := range st.GetHosts() {
		var rec struct {
			Value struct {
				Covered    bool
				Generation uint64
				Address    string
			}
		}
		if err := readJSON(s.record("fleet/"+h.GetId()), &rec); err != nil {
			return err
		}
		v := rec.Value
		if ip := net.ParseIP(v.Address); !v.Covered || v.Generation < 1 || v.Generation > want.generation || ip == nil || !ip.IsLoopback() {
			errs = append(errs, fmt.Errorf("the fleet's record of %s is %+v at generation %d", h.GetName(), v, want.generation))
		}
	}
	return errors.Join(errs...)
}
