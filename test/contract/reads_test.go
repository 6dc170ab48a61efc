package contract

import (
	"strings"
	"testing"

	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

// readsByReplicas has replicas answer reads, too: they log them then.
const readsByReplicas = "log: {level: info}"

// readsFromReplicas says so for an embedded one.
func readsFromReplicas(_ *server.InitConfig, cfg *server.Config) {
	cfg.Registry.Section = []byte(readsByReplicas)
}

// readsFromFiles are the server's default: replicas hear of no read of a manifest or
// a blob.
func readsFromFiles(_ *server.InitConfig, cfg *server.Config) { cfg.Registry.Section = nil }

// eachWay is each, and once more for replicas in containers with the server's default.
func eachWay(t *testing.T, contract func(t *testing.T, s *site)) {
	each(t, contract)
	t.Run("docker, reads from files", func(t *testing.T) { contract(t, open(t, "docker", readsFromFiles)) })
}

// runInContainers has replicas in them, which answer reads: what they cannot read
// would come from the files else.
func (s *site) runInContainers() {
	s.t.Helper()
	s.cfg.Image, s.cfg.Replicas = images.Registry(s.t), 2
	s.cfg.Registry.Section = []byte(readsByReplicas)
}

// throughReplicas says whether replicas answer reads.
func (s *site) throughReplicas() bool {
	return strings.Contains(string(s.cfg.Registry.Section), readsByReplicas)
}
