package server

import (
	"context"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/registry/parameters"
)

// Setting is one value that counts, for people.
type Setting struct {
	// Key as in the configuration file, parts joined by dots.
	Key string
	// Value as it is written; "(secret)" in place of one.
	Value string
	// Origin is "flag", "environment", "file" or "default", "init" for what a data
	// directory keeps, "upgrade" for an image, or "systemd" for a socket's address.
	Origin string
}

// RegistryParameters are the operator's for the registry behind the edge, in the
// configuration format of distribution.
type RegistryParameters struct {
	// File that the section stands in, for errors.
	File string
	// Section is its text in YAML. Default: there is none.
	Section []byte
	// Environ are variables as in os.Environ; those called REGISTRY_… count, over
	// the section. Default: none.
	Environ []string
	// Engine that they are for, "embedded" or "docker". Default: embedded.
	Engine string
	// Network says that the containers of Docker reach one.
	Network bool
	// Replicas is how many containers run. Default: 1.
	Replicas int
}

// parse reads them; an error says each mistake.
func (p RegistryParameters) parse() (*parameters.Set, error) {
	return parameters.Parse(p.Section, p.Environ, parameters.Options{
		File: p.File, Engine: p.Engine, Network: p.Network, Replicas: p.Replicas,
	})
}

// Show returns the parameters that count with their defaults, and whether the
// section holds secrets.
func (p RegistryParameters) Show() (settings []Setting, secrets bool, err error) {
	s, err := p.parse()
	if err != nil {
		return nil, false, err
	}
	for _, v := range s.Shown() {
		settings = append(settings, Setting{v.Key, v.Value, v.Origin})
	}
	return settings, s.SecretsInFile(), nil
}

// registryParameters are those to start with; what was passed over is logged.
func (n *node) registryParameters() (*parameters.Set, error) {
	s, err := n.cfg.Registry.parse()
	if err != nil {
		return nil, err
	}
	for _, warning := range s.Warnings() {
		n.log.Warn(warning)
	}
	return s, nil
}

// ShowConfig returns each setting that counts here.
func (a *adminAPI) ShowConfig(context.Context, *pb.ShowConfigRequest) (*pb.ShowConfigResponse, error) {
	resp := &pb.ShowConfigResponse{}
	upgraded := a.node.registry.Upgraded()
	for _, s := range a.node.cfg.Settings {
		if s.Key == "registry-image" && upgraded != "" {
			s.Value, s.Origin = upgraded, "upgrade"
		}
		s = a.node.overlaid(s)
		resp.Settings = append(resp.Settings, &pb.Setting{Key: s.Key, Value: s.Value, Origin: s.Origin})
	}
	return resp, nil
}
