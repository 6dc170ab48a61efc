package server

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
)

// leastLife of a CA or a leaf: one that lives shorter has ended before a host has
// looked at it.
const leastLife = 5 * time.Second

// Check says all that is wrong with what a server would be told: values that cannot
// be meant, and what contradicts the data directory if that holds a registry. It
// changes nothing; Run checks the same.
func (cfg Config) Check() error {
	s, made, err := readSite(cfg.DataDir)
	if err != nil {
		return err
	}
	cfg = cfg.keep(s)
	return errors.Join(cfg.checkNames(s, made), cfg.checkPorts(), cfg.checkProfiles(), cfg.checkWindow(), checkLives(cfg.CALife, cfg.LeafLife), cfg.checkEngine(made))
}

// checkNames guards against starting on another registry's directory, and against
// names that the CA is not for.
func (cfg Config) checkNames(s site, made bool) error {
	if _, err := parseSubject(cfg.Subject); err != nil {
		return err
	}
	given := site{Domain: orDefault(cfg.Domain, s.Domain), Aliases: cfg.Aliases}
	if given.Domain == "" {
		return nil // there is no registry, and Run says so
	}
	names, err := given.names()
	if err != nil || !made {
		return err
	}
	own, err := s.names()
	if err != nil {
		return err
	}
	if names[0] != own[0] {
		return fmt.Errorf("%s belongs to the registry %s, not %s: give its own --data-dir, or leave --domain out", cfg.DataDir, own[0], names[0])
	}
	for _, alias := range names {
		if !slices.Contains(own, alias) {
			return fmt.Errorf("--alias %s: the registry in %s has the names %s, and no other can be added, since they are in the CA that each host has: leave it out, or make a registry with all names and join every host again (docs/reference/configuration.md)", alias, cfg.DataDir, listed(own))
		}
	}
	return nil
}

func listed(names []certs.Name) string {
	text := make([]string, len(names))
	for i, n := range names {
		text[i] = n.String()
	}
	return strings.Join(text, ", ")
}

func (cfg Config) checkPorts() error {
	var errs []error
	for _, p := range []struct {
		flag, address string
		orOff         bool
	}{{"--listen", cfg.RegistryListen, false}, {"--grpc-listen", cfg.GRPCListen, false}, {"--gossip-listen", cfg.GossipListen, true}, {"--http-listen", cfg.HTTPListen, true}} {
		if p.address != "" && (p.address != off || !p.orOff) {
			errs = append(errs, checkAddress(p.flag, p.address))
		}
	}
	return errors.Join(append(errs, checkAdvertise(cfg.Advertise))...)
}

func checkAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("%s %q is not HOST:PORT (%w): give for example 10.0.0.1:5000, or :5000 for all addresses", flag, address, err)
	}
	return nil
}

// checkAdvertise: HOST or HOST:PORT, where HOST may be a bare IPv6 address.
func checkAdvertise(s string) error {
	if _, err := netip.ParseAddr(s); err == nil || s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil && !strings.Contains(s, ":") {
		host, port, err = s, "1", nil
	}
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	switch {
	case err != nil:
		return fmt.Errorf("--advertise %q is not HOST[:PORT] (%w): give what agents dial, like registry.example.com:7443", s, err)
	case host == "" || strings.ContainsAny(host, "/ "):
		return fmt.Errorf("--advertise %q names no host: give what agents dial, like registry.example.com:7443", s)
	}
	return nil
}

func (cfg Config) checkWindow() error {
	if _, err := authority.ParseWindow(cfg.RotateWindow); err != nil {
		return fmt.Errorf("--rotate-window: %w", err)
	}
	return nil
}

// checkLives of CAs and leaves; zero is the default, which fits any other: a leaf
// ends with its CA.
func checkLives(ca, leaf time.Duration) error {
	switch {
	case ca > 0 && ca < leastLife:
		return fmt.Errorf("--ca-life %s: a CA lives %s at least, or no host would have it in time", ca, leastLife)
	case leaf > 0 && leaf < leastLife:
		return fmt.Errorf("--leaf-life %s: a certificate lives %s at least, or no host would see it in time", leaf, leastLife)
	case ca > 0 && leaf > ca:
		return fmt.Errorf("--leaf-life is longer than --ca-life (%s, %s), and no certificate outlives its CA: give a shorter one", roughly(leaf), roughly(ca))
	}
	return nil
}

// MaxReplicas is far above what one machine's disk can feed.
const MaxReplicas = 64

// checkEngine: what is for containers alone needs the engine that has them. Of a
// registry that is still to be made, Init looks at the volume.
func (cfg Config) checkEngine(made bool) error {
	if cfg.Engine != nil {
		return nil
	}
	if made {
		if err := checkVolume(cfg.EngineName, cfg.Volume); err != nil {
			return err
		}
	}
	if cfg.Replicas < 0 || cfg.Replicas > MaxReplicas {
		return fmt.Errorf("--replicas %d: give 1 to %d", cfg.Replicas, MaxReplicas)
	}
	if cfg.EngineName == engineDocker {
		return nil
	}
	for _, f := range []struct {
		flag  string
		given bool
	}{{"--registry-image", cfg.Image != ""}, {"--registry-network", cfg.Network != ""}, {"--replicas", cfg.Replicas > 1}} {
		if f.given {
			return fmt.Errorf("%s is for the docker engine, and the embedded engine is one registry in this process: leave it out, or add --engine docker", f.flag)
		}
	}
	return nil
}

// Check says what is wrong with the values that Init would be given; it looks at no
// directory and changes nothing.
func (cfg InitConfig) Check() error {
	if err := cfg.adoptVolume(); err != nil {
		return err
	}
	_, _, _, err := cfg.site()
	return err
}

// site is what the record will say, with what is parsed of it.
func (cfg InitConfig) site() (s site, names []certs.Name, subject pkix.Name, err error) {
	s = site{
		Domain: cfg.Domain, Aliases: cfg.Aliases, Subject: cfg.Subject, Engine: cfg.EngineName, Volume: cfg.Volume,
		CALife: cfg.CALife, LeafLife: cfg.LeafLife, ControlLife: cfg.ControlLife,
	}
	if names, err = s.names(); err != nil {
		return s, nil, subject, err
	}
	s.Domain = names[0].String()
	if subject, err = parseSubject(cfg.Subject); err == nil {
		err = errors.Join(checkFirstUser(cfg), checkVolume(cfg.EngineName, cfg.Volume), checkLives(cfg.CALife, cfg.LeafLife))
	}
	return s, names, subject, err
}
