//go:build linux

package fleet_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestTwoRegistries: one agent of a real Docker host serves two registries. One server
// is killed, the other's rotation is completed, and each registry is pulled from after
// each step; what is left is refused again.
func TestTwoRegistries(t *testing.T) {
	if why := missing(); why != "" {
		t.Skip("two registries: " + why)
	}
	t.Parallel()
	begin := time.Now()
	f := newFleet(t, 1)
	h := f.hosts[0]
	r := &renewals{host: h}
	t.Cleanup(func() { must(t, r.stopLanes()) })
	must(t, h.startAgent("--await-join"))
	for i := range 2 {
		l := f.newLane(i)
		r.lanes = append(r.lanes, l)
		_, err := l.server.command("init", "--domain", l.domain)
		must(t, err)
		must(t, l.server.start("trustcast", nil))
		must(t, l.setPassword("engine", password))
		r.refused(t, l)
	}
	for _, l := range r.lanes {
		l.joinAlso(t, h)
	}
	first, second := r.lanes[0], r.lanes[1]
	pull := func(when string, lanes ...*lane) {
		t.Helper()
		for _, l := range lanes {
			if err := h.pull(l.image()); err != nil {
				t.Fatalf("%s: pull from %s: %v", when, l.domain, err)
			}
		}
	}
	rotate := func(l *lane) {
		t.Helper()
		_, err := l.server.command("ca", "rotate", "--wait")
		must(t, err)
	}
	pull("joined", first, second)
	for _, l := range r.lanes {
		must(t, l.server.wait(time.Minute, "gossip of "+l.domain, func(st status) bool { return st.host(h.name).Gossip == "ok" }))
	}
	rotate(first)
	first.server.kill()
	rotate(second)
	pull("the first server is away", second)
	if out, err := h.agentCommand("status"); err == nil || !strings.Contains(err.Error(), first.domain) || strings.Contains(err.Error(), second.domain+":") {
		t.Errorf("the status does not tell which server is away: %v\n%s", err, out)
	}
	must(t, first.server.start("trustcast", nil))
	must(t, first.server.wait(time.Minute, "the host is back", func(st status) bool { return st.host(h.name).State == "trusted" }))
	rotate(first)
	pull("both are rotated", first, second)
	_, err := h.agentCommand("leave", first.domain)
	must(t, err)
	r.refused(t, first)
	pull("the first is left", second)
	rotate(second)
	pull("and the second goes on", second)
	if !h.agent.running() {
		t.Error("the agent has ended")
	}
	_, err = h.agentCommand("leave", "--all")
	must(t, err)
	r.refused(t, second)
	t.Logf("two registries, four rotations; %v in all", time.Since(begin).Round(time.Second))
}

// joinAlso joins the lane's registry while the host's agent runs, and puts an image
// into it.
func (l *lane) joinAlso(t *testing.T, h *host) {
	t.Helper()
	token, err := l.server.command("token", "create", "-q")
	must(t, err)
	_, err = h.agentCommand("join", "registry.test:"+l.server.ports.grpc, "--token", strings.TrimSpace(token), "--name", h.name)
	must(t, err)
	must(t, l.server.wait(time.Minute, h.name+" is trusted", func(st status) bool { return st.host(h.name).State == "trusted" }))
	must(t, h.login(l.domain, "engine", password))
	img, err := random.Image(layerBytes, imageLayers)
	must(t, err)
	ref, err := name.NewTag(l.image())
	must(t, err)
	client, err := l.client(h, nil)
	must(t, err)
	defer client.CloseIdleConnections()
	must(t, remote.Write(ref, img, remote.WithTransport(client), remote.WithAuth(&authn.Basic{Username: "engine", Password: password})))
}
