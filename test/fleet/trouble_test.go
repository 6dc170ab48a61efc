//go:build linux

package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// chaos is what troubles need, and what they have done so far.
type chaos struct {
	*fleet
	t       *testing.T
	excuses *excuses
	counts  tally
}

// begin makes a trouble; end, which may be nil, takes it away.
func (c *chaos) begin(p trouble) (end func() error, err error) {
	c.counts[string(p.kind)]++
	if p.kind == killServer {
		return nil, c.killServer()
	}
	h := c.hosts[p.host]
	switch p.kind {
	case killAgent:
		return nil, c.restartAgent(h, "trustcast-agent", "")
	case linkDown:
		return c.linkDown(h)
	case packetLoss:
		return c.losePackets(h, p.amount)
	case slowLink:
		return c.slowLink(h, time.Duration(p.amount)*time.Millisecond)
	case wrongClock:
		return c.wrongClock(h, p.amount)
	case fullDisk:
		return h.fillDisk()
	case readOnly:
		return h.freezeCerts()
	}
	return nil, fmt.Errorf("no such trouble: %s", p.kind)
}

// killServer is kill -9, and a start at once; until it is ready nobody can pull.
func (c *chaos) killServer() error {
	defer c.excuses.begin("", string(killServer))()
	c.server.kill()
	return c.server.start("trustcast", nil)
}

// restartAgent is kill -9, and a start at once.
func (c *chaos) restartAgent(h *host, binary, faults string) error {
	if err := h.stopAgent(syscall.SIGKILL); err != nil {
		return err
	}
	if faults == "" {
		return h.runAgent(binary, nil)
	}
	return h.runAgent(binary, []string{"TRUSTCAST_FAULTS=" + faults})
}

func (c *chaos) linkDown(h *host) (func() error, error) {
	excused := c.excuses.begin(h.name, string(linkDown))
	return func() error {
		defer excused()
		return c.net.setLink(h.name, true)
	}, c.net.setLink(h.name, false)
}

// losePackets drops some of what arrives at the host, and of what leaves it.
func (c *chaos) losePackets(h *host, percent int) (func() error, error) {
	excused := c.excuses.begin(h.name, string(packetLoss))
	rule := func(verb string) error {
		var lines []string
		for _, chain := range []string{"INPUT ! -i lo", "OUTPUT ! -o lo"} {
			lines = append(lines, fmt.Sprintf("%s iptables -w %s %s -m statistic --mode random --probability 0.%02d -j DROP",
				c.net.inside(h.name), verb, chain, percent))
		}
		return steps(lines...)
	}
	return func() error {
		defer excused()
		return rule("-D")
	}, rule("-I")
}

// slowLink takes the host's new connections to the server through a relay. The
// agent is started anew, so that its stream is one of them; it stays on the
// relay afterwards, without the delay.
func (c *chaos) slowLink(h *host, delay time.Duration) (func() error, error) {
	excused := c.excuses.begin(h.name, string(slowLink))
	var relays []*relay
	var undo []func() error
	for _, port := range []string{registryPort, grpcPort} {
		r := newRelay(c.t, c.fleet, c.server.listen(port), delay, nil)
		back, err := c.net.redirect(h.name, c.server.listen(port), r.address())
		if err != nil {
			return nil, err
		}
		relays, undo = append(relays, r), append(undo, back)
	}
	return func() error {
		defer excused()
		for _, r := range relays {
			r.delay.Store(0)
		}
		return errors.Join(undo[0](), undo[1]())
	}, c.restartAgent(h, "trustcast-agent", "")
}

// wrongClock starts the agent with a clock that is wrong by some minutes.
func (c *chaos) wrongClock(h *host, minutes int) (func() error, error) {
	return func() error { return c.restartAgent(h, "trustcast-agent", "") },
		c.restartAgent(h, "trustcast-agent-faults", fmt.Sprintf("clock=%+dm", minutes))
}

// inHost runs a script as root of the host, in its namespaces.
func (h *host) inHost(script string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	argv := append(h.enter(), append([]string{"sh", "-ec", script, "sh"}, args...)...)
	_, err := h.net.run.output(ctx, nil, "", argv...)
	return err
}

// smallDisk puts the agent's data directory on a disk of 1 MiB; the agent must
// not have joined yet.
func (h *host) smallDisk() error {
	return h.inHost(`mount -t tmpfs -o size=1m none "$1"`, h.path("agent"))
}

// fillDisk leaves no free byte on the small disk.
func (h *host) fillDisk() (func() error, error) {
	return func() error { return h.inHost(`rm "$1/ballast"`, h.path("agent")) },
		h.inHost(`! head -c 2M /dev/zero 2>/dev/null >"$1/ballast"`, h.path("agent"))
}

// freezeCerts makes certs.d read-only, for root as well.
func (h *host) freezeCerts() (func() error, error) {
	const certs = "/etc/docker/certs.d"
	return func() error { return h.inHost(`mount -o remount,bind,rw "$1"`, certs) },
		h.inHost(`mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"`, certs)
}
