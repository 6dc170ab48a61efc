package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/identity"
)

const day = 24 * time.Hour

// Ends are worth a line at 30, 7 and 1 days. Each is bounded by a part of the
// life, so that short lives are not always about to end.
var notice = [3]struct {
	left time.Duration
	part time.Duration // of a life
}{{30 * day, 4}, {7 * day, 8}, {day, 16}}

// urgency says how near the end of a certificate is: 0 is no reason for a line,
// 1 to 3 that 30, 7 or 1 days are left or less, 4 that it has ended. Nothing is
// said before three quarters of a life: what is replaced by itself is so by then
// (two thirds and a spread of 5 %).
func urgency(made, ends, now time.Time) int {
	life, left := ends.Sub(made), ends.Sub(now)
	if left <= 0 {
		return len(notice) + 1
	}
	level := 0
	for _, n := range notice {
		if left <= min(n.left, life/n.part) {
			level++
		}
	}
	return level
}

// certificate is one whose end matters.
type certificate struct {
	// key is its label in metrics and logs.
	key        string
	made, ends time.Time
	// text says what it is, "" to say nothing; advice what to do when it was not
	// replaced.
	text, advice string
}

// certificates lists those of this server.
func (n *node) certificates(state authority.State) []certificate {
	control, server := n.identity.Lives()
	ca := named("registry_ca", state.IssuerLife.From, state.IssuerLife.Until, state.Adopted)
	leaf := named("leaf", state.LeafEnds.Add(-n.cfg.LeafLife), state.LeafEnds, false)
	if !state.LeafEnds.Before(state.IssuerLife.Until) {
		leaf.text = "" // it ends with its CA: that line says all
	}
	return []certificate{
		ca, leaf,
		named("control_ca", control.Made, control.Ends, false),
		named("server_identity", server.Made, server.Ends, false),
	}
}

// named gives a certificate the words about it; adopted is one that was taken over with
// the registry.
func named(key string, made, ends time.Time, adopted bool) certificate {
	c := certificate{key: key, made: made, ends: ends, advice: "it should have been replaced by itself: see the server's log for the reason"}
	switch {
	case adopted:
		c.text, c.advice = "the adopted certificate", "it cannot be renewed here: replace it with `trustcast ca rotate`"
	case key == "registry_ca":
		c.text, c.advice = "the registry CA", "rotate it with `trustcast ca rotate`"
	case key == "leaf":
		c.text = "the registry's certificate"
	case key == "control_ca":
		c.text = "the control CA"
	default:
		c.text = "the server's identity"
	}
	return c
}

// line is the warning about a certificate; "" when there is no reason for one.
func (c certificate) line(now time.Time) string {
	switch level := urgency(c.made, c.ends, now); {
	case level == 0, c.text == "":
		return ""
	case level <= len(notice):
		return fmt.Sprintf("%s ends in %s: %s", c.text, roughly(c.ends.Sub(now)), c.advice)
	case c.key == "registry_ca":
		return "the registry CA has ended and no pull works: it is being replaced, and each host pulls again once it has the new one"
	default:
		return fmt.Sprintf("%s has ended: %s", c.text, c.advice)
	}
}

// roughly is a duration in the unit that says something.
func roughly(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", int(d/day))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	default:
		return fmt.Sprintf("%d seconds", int(d/time.Second))
	}
}

// warnings are things that an operator should do something about.
func (n *node) warnings(state authority.State, hosts []identity.Host) []string {
	var out []string
	if len(n.users.Names()) == 0 {
		out = append(out, "the registry has no users, every request gets 401: add one with `trustcast user add NAME`")
	}
	out = append(out, n.registryWarnings()...)
	if n.cfg.GossipListen != off && n.gossip == nil {
		out = append(out, "gossip is off because its port could not be opened: see the log, or give another --gossip-listen")
	}
	if state.Stuck != "" && state.Stuck != state.Frozen {
		out = append(out, "the server is stuck and tries again: "+state.Stuck)
	}
	if n.oldKeyLeft() {
		out = append(out, fmt.Sprintf("%s is the key of the certificate that was adopted and is served no more: delete it", n.layout.oldKey()))
	}
	out = append(out, n.cloneWarnings()...)
	now := time.Now()
	for _, c := range n.certificates(state) {
		if line := c.line(now); line != "" {
			out = append(out, line)
		}
	}
	if line, _ := n.lateHosts(hosts, now); line != "" {
		out = append(out, line)
	}
	return out
}

// oldKeyLeft: the adopted certificate is retired, and the operator's file with its
// key is still there.
func (n *node) oldKeyLeft() bool {
	if n.site.Adopted.IsZero() || n.authority.Wanted().Adopted != "" {
		return false
	}
	_, err := os.Stat(n.layout.oldKey())
	return err == nil
}

// maxLate bounds the hosts that one line names.
const maxLate = 5

// lateHosts is the warning about identities of present hosts that were not
// renewed in time, and how urgent the worst of them is. Hosts that are gone
// renew when they come back.
func (n *node) lateHosts(hosts []identity.Host, now time.Time) (line string, worst int) {
	var names []string
	var first time.Time
	for _, h := range hosts {
		made := h.Made
		if made.IsZero() {
			made = h.Enrolled
		}
		level := urgency(made, h.Ends, now)
		if level == 0 || !n.fleet.State(h.ID).Present {
			continue
		}
		names, worst = append(names, h.Name), max(worst, level)
		if first.IsZero() || h.Ends.Before(first) {
			first = h.Ends
		}
	}
	if len(names) == 0 {
		return "", 0
	}
	more := ""
	if len(names) > maxLate {
		names, more = names[:maxLate], fmt.Sprintf(" and %d more", len(names)-maxLate)
	}
	when := "the first has ended"
	if left := first.Sub(now); left > 0 {
		when = "the first ends in " + roughly(left)
	}
	return fmt.Sprintf("identities were not renewed on %s%s (%s): the agent's log there says why", strings.Join(names, ", "), more, when), worst
}

// warn logs a warning about an end once for each of its thresholds, and a pause
// once, until ctx ends. What is wrong at a start is said again.
func (n *node) warn(ctx context.Context) error {
	said, silent, unsaved := map[string]int{}, false, ""
	say := func(key, line string, level int) {
		if level > said[key] && line != "" {
			n.log.Warn(line, "certificate", key)
		}
		said[key] = level
	}
	for {
		now := time.Now()
		if state, err := n.authority.State(); err != nil {
			n.log.Error("ends of certificates not looked at", "err", err)
		} else {
			for _, c := range n.certificates(state) {
				say(c.key, c.line(now), urgency(c.made, c.ends, now))
			}
			line, worst := n.lateHosts(n.identity.Hosts(), now)
			say("host_identity", line, worst)
		}
		n.warnOfBackup(&unsaved)
		off, paused := n.clockOff()
		if text := pausedText(off, paused); paused && !silent {
			n.log.Warn(text)
		}
		silent = paused
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(n.warnEvery()):
		}
	}
}

// warnEvery is how often ends and clocks are looked at: ten ticks cost nothing,
// and short lives have a shorter notice than a day.
func (n *node) warnEvery() time.Duration {
	every := min(time.Hour, 10*n.cfg.Tick)
	for _, life := range []time.Duration{n.cfg.CALife, n.cfg.LeafLife, n.cfg.ControlLife, n.cfg.ServerIdentityLife, n.cfg.IdentityLife} {
		if life > 0 {
			every = min(every, life/(2*notice[2].part))
		}
	}
	return max(every, time.Second)
}

// register adds what this file and clock.go know to the metrics.
func (n *node) register() {
	for i, key := range []string{"registry_ca", "leaf", "control_ca", "server_identity"} {
		n.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "trustcast_certificate_not_after_timestamp_seconds",
			Help:        "When a certificate of this server ends, in Unix seconds.",
			ConstLabels: prometheus.Labels{"certificate": key},
		}, func() float64 {
			state, err := n.authority.State()
			if err != nil {
				return 0 // status says it
			}
			return float64(n.certificates(state)[i].ends.Unix())
		}))
	}
	n.registerBackup()
	n.metrics.MustRegister(hostMetrics{n})
	n.registerBuild()
	n.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trustcast_clock_skew_seconds",
		Help: "Median of the reporting hosts' clocks minus this server's; beyond 3600 automatic actions pause.",
	}, func() float64 {
		off, _ := n.clockOff()
		return off.Seconds()
	}))
}
