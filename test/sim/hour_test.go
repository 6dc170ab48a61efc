package sim

import (
	"testing"
	"time"

	"github.com/trustcast/trustcast/agent"
)

// TestHour: 200 hosts at the program's own intervals, 5 % of packets lost: an
// hour with two rotations, one of them through a restart of the server.
func TestHour(t *testing.T) {
	prove(t)
	seed := seed()
	defer func() {
		if t.Failed() {
			t.Logf("repeat with: TRUSTCAST_PROVE=1 go test -count=1 ./test/sim -run '^TestHour$' -seed=%d", seed)
		}
	}()
	p := pace{tick: time.Minute, gone: 10 * time.Minute, deadline: 10 * time.Minute, poll: 5 * time.Second, look: time.Minute}
	simulateAt(t, p, seed, 200, agent.Layers{}, func(w *world) {
		began := time.Now()
		w.gossip.SetLoss(0.05)
		w.rotate()
		w.until("the rotation ends", 30*time.Minute, idleAt(3))
		w.rotateAndHold("staged")
		w.restartServer()
		w.stays("staged")
		w.release()
		w.until("the rotation ends", 30*time.Minute, idleAt(5))
		w.until("all hosts trust", 5*time.Minute, trusted(200))
		time.Sleep(time.Until(began.Add(time.Hour)))
		w.until("all hosts still trust", 5*time.Minute, trusted(200))
	})
}
