package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// Bounds of what a server may ask for.
const (
	minTick   = 100 * time.Millisecond
	maxTick   = 24 * time.Hour
	maxWindow = 10 * time.Minute
	maxPeers  = 64
	maxKeys   = 8
)

// offered is a wanted state that passed vetting.
type offered struct {
	revision, rotation uint64
	bundle             certs.Bundle
	names              []certs.Name
	leaves             []leaf
	tick, window       time.Duration
	registry           string
	gossip             ring
	controlCAs         []*x509.Certificate
}

// vet checks a wanted state from the server: the domain is fixed since
// enrolment, and the bundle must be constrained to the names, but for the adopted
// certificate that the enrolment named.
func vet(m *pb.Wanted, domain string, adopted certs.Fingerprint, now time.Time) (offered, error) {
	o := offered{
		revision: m.GetRevision(), rotation: m.GetRotation(),
		tick:   min(max(m.GetTick().AsDuration(), minTick), maxTick),
		window: min(max(m.GetWindow().AsDuration(), 0), maxWindow),
	}
	var err error
	if len(m.GetNames()) == 0 || len(m.GetNames()) > maxNames {
		return o, fmt.Errorf("wanted state refused: it has %d names", len(m.GetNames()))
	}
	if o.names, err = parseNames(domain, m.GetNames()); err != nil {
		return o, fmt.Errorf("wanted state refused: %w", err)
	}
	if m.GetNames()[0] != o.names[0].String() {
		return o, fmt.Errorf("wanted state refused: it is for %s, this host joined %s", m.GetNames()[0], domain)
	}
	if o.bundle, err = certs.ParseBundle(m.GetGeneration(), m.GetBundle(), o.names, now, adopted); err != nil {
		return o, err
	}
	if o.leaves, err = parseLeaves(m.GetLeaves()); err != nil {
		return o, err
	}
	if o.gossip, err = vetRing(m.GetGossip()); err != nil {
		return o, err
	}
	if o.controlCAs, err = parseControlCAs(m.GetControlCas()); err != nil {
		return o, fmt.Errorf("wanted state refused: %w", err)
	}
	if _, _, err := net.SplitHostPort(m.GetRegistryAddress()); err == nil {
		o.registry = m.GetRegistryAddress()
	}
	return o, nil
}

func vetRing(g *pb.Gossip) (ring, error) {
	if len(g.GetKeys()) > maxKeys || len(g.GetPeers()) > maxPeers {
		return ring{}, errors.New("wanted state refused: too many gossip keys or peers")
	}
	for _, k := range g.GetKeys() {
		if len(k) != 32 {
			return ring{}, errors.New("wanted state refused: a gossip key has not 32 bytes")
		}
	}
	return ring{Keys: g.GetKeys(), Peers: slices.Clone(g.GetPeers()), Version: g.GetVersion()}, nil
}

// trusted is what the agent keeps of it.
func (o offered) trusted() trusted {
	t := trusted{
		Format: stateFormat, Revision: o.revision, Rotation: o.rotation,
		Generation: o.bundle.Generation, Print: o.bundle.Fingerprint(), Roots: o.bundle.DER(),
		Tick: o.tick, Window: o.window, Registry: o.registry, Gossip: o.gossip,
	}
	for _, n := range o.names {
		t.Names = append(t.Names, n.String())
	}
	return t
}
