package main

import (
	"testing"
	"time"

	"github.com/trustcast/trustcast/internal/config"
	"github.com/trustcast/trustcast/server"
)

// What nothing sets is shown as the data directory keeps it, and what is set as it is.
func TestUnderlay(t *testing.T) {
	kept := server.Kept{
		Domain: "a.test:5000", Aliases: []string{"b.test", "c.test"}, Engine: "docker", Volume: "v",
		LeafLife: 36 * time.Hour, Upgraded: "registry:3.1",
	}
	for _, test := range []struct {
		cfg        server.Config
		set, shown server.Setting
	}{
		{shown: server.Setting{Key: "domain", Value: "a.test:5000", Origin: "init"}},
		{shown: server.Setting{Key: "alias", Value: "[b.test,c.test]", Origin: "init"}, set: server.Setting{Value: "[b.test]", Origin: "flag"}},
		{shown: server.Setting{Key: "leaf-life", Value: "36h", Origin: "init"}, set: server.Setting{Value: "30d"}},
		{shown: server.Setting{Key: "leaf-life", Value: "30d", Origin: "file"}, set: server.Setting{Value: "30d", Origin: "file"}},
		{shown: server.Setting{Key: "ca-life", Value: "365d", Origin: "default"}, set: server.Setting{Value: "365d"}},
		{shown: server.Setting{Key: "engine", Value: "docker", Origin: "init"}},
		{shown: server.Setting{Key: "volume", Value: "v", Origin: "init"}},
		{shown: server.Setting{Key: "volume", Origin: "default"}, cfg: server.Config{EngineName: "embedded"}},
		{shown: server.Setting{Key: "registry-image", Value: "registry:3.1", Origin: "upgrade"}, set: server.Setting{Value: "registry:3", Origin: "flag"}},
		{shown: server.Setting{Key: "registry-image", Value: "registry:3", Origin: "flag"}, set: server.Setting{Value: "registry:3", Origin: "flag"}, cfg: server.Config{EngineName: "embedded"}},
	} {
		set := test.set
		set.Key = test.shown.Key
		if set.Origin == "" {
			set.Origin = string(config.Default)
		}
		if got := underlay(set, test.cfg, kept); got != test.shown {
			t.Errorf("%+v with %+v is shown as %+v, want %+v", set, test.cfg, got, test.shown)
		}
	}
}
