package sim

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// stepHandler is the server's log: each transition of the rotation stops here,
// after the record is durable and before anybody is told, and is checked.
type stepHandler struct{ world *world }

func (h *stepHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *stepHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *stepHandler) WithGroup(string) slog.Handler            { return h }

func (h *stepHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.world.mu.Lock()
		h.world.warned = append(h.world.warned, r.Message)
		h.world.mu.Unlock()
	}
	if r.Message != "rotation" {
		return nil
	}
	var phase, event string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "phase":
			phase = a.Value.String()
		case "event":
			event = a.Value.String()
		}
		return true
	})
	h.world.step(phase, event)
	return nil
}

// logged returns the server's warnings that contain a text.
func (w *world) logged(text string) (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.warned {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// step checks the promises at a transition.
func (w *world) step(phase, event string) {
	rec, err := w.readRecord()
	if err != nil {
		w.fail("read the record: %v", err)
		return
	}
	w.mu.Lock()
	w.uncovered = rec.Value.Rotation.Uncover
	w.closed = rec.Value.Rotation.Restored
	if event == "open" {
		w.opened = time.Now()
	}
	w.mu.Unlock()
	w.checkBundle(rec)
	if event == "switch" {
		w.checkSwitch(rec)
	}
	w.checkPulls("at " + event)
	w.mu.Lock()
	w.phases = append(w.phases, phase)
	switch event {
	case "rotate":
		w.rotations++
	case "switch":
		w.switches++
	}
	w.last = rec
	hold := w.holdAt == phase || event == "gossip" && w.holdRing != "" && w.holdRing == w.ringStep()
	if hold {
		w.holdAt, w.holdRing = "", ""
	}
	w.mu.Unlock()
	if hold { // nobody has been told yet
		w.cutLink("host-0", true)
	}
	select {
	case w.steps <- phase:
	default:
	}
}

// checkBundle: S3, S4 and S5 as far as the record says.
func (w *world) checkBundle(rec record) {
	r := rec.Value.Rotation
	w.mu.Lock()
	last := w.last.Value.Rotation
	w.mu.Unlock()
	if r.Generation < last.Generation || r.Generation == last.Generation && !slices.Equal(r.Bundle, last.Bundle) {
		w.fail("S4: generation %d %v after %d %v", r.Generation, r.Bundle, last.Generation, last.Bundle)
	}
	if !slices.Contains(r.Bundle, r.Active) {
		w.fail("S5: bundle %v without the active CA %d", r.Bundle, r.Active)
	}
	if last.Active != 0 && !slices.Contains(r.Bundle, last.Active) && r.Active != last.Active {
		w.fail("S5: bundle %v without the CA %d that still serves", r.Bundle, last.Active)
	}
	for _, ca := range rec.Value.CAs {
		if (ca.Key != "") != (ca.ID == r.Active || ca.ID == r.Other) {
			w.fail("S3: CA %d has a key: %v, with %d active and %d other", ca.ID, ca.Key != "", r.Active, r.Other)
		}
	}
}

// checkSwitch: S2, every host that must be waited for has the new root itself.
func (w *world) checkSwitch(rec record) {
	var active certs.Fingerprint
	for _, ca := range rec.Value.CAs {
		if ca.ID == rec.Value.Rotation.Active {
			cert, err := certs.ParseCertificate(ca.Cert)
			if err != nil {
				w.fail("parse the active CA: %v", err)
				return
			}
			active = certs.FingerprintOf(cert)
		}
	}
	w.mu.Lock()
	deadline := w.last.Value.Rotation.Deadline
	w.mu.Unlock()
	for _, h := range w.covered() {
		if slices.Contains(rec.Value.Rotation.Skipped, h.id) || !w.present(h) && !time.Now().Before(deadline) {
			continue
		}
		roots, err := readRoots(h.caFile())
		if err != nil {
			w.fail("S2: switched although %s has no CA file: %v", h.name, err)
			continue
		}
		if !slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return certs.FingerprintOf(c) == active }) {
			w.fail("S2: switched although %s does not have the new root", h.name)
		}
	}
}

// checkPulls: S1, every covered present host verifies what is served now. Hosts
// with the same bytes on disk share a handshake.
func (w *world) checkPulls(when string) {
	if w.isClosed() {
		return
	}
	disks := map[string][]*host{} // by what is on them
	for _, h := range w.covered() {
		pem, err := os.ReadFile(h.caFile())
		if err != nil {
			w.broken(h, when, err)
			continue
		}
		disks[string(pem)] = append(disks[string(pem)], h)
	}
	for pem, hosts := range disks {
		roots, err := certs.ParsePEM([]byte(pem))
		made := true
		if err == nil {
			made, err = w.shake("client of "+hosts[0].name, roots)
		}
		if !made {
			continue
		}
		w.mu.Lock()
		w.shakes++
		w.pulls += len(hosts)
		w.mu.Unlock()
		if err == nil {
			continue
		}
		for _, h := range hosts {
			w.broken(h, when, err)
		}
	}
}

// isClosed: the server was restored and serves nobody, or what it serves is not
// promised to anybody.
func (w *world) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed || time.Since(w.opened) == 0 // the record is durable, the edge comes next
}

// broken is a pull that failed; the promise is for present hosts.
func (w *world) broken(h *host, when string, err error) {
	if w.present(h) && !h.drifted {
		w.fail("S1 %s: %s: %v", when, h.name, err)
	}
}

// settling is how many ticks a host that is up again may take to give its first
// sign: a pause between tries is at most one and a half.
const settling = 2

// present is what the promises mean by it, seen from outside: up for a while, or
// down for less than gone-after, or the server started less than that ago.
func (w *world) present(h *host) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	since := h.downSince
	if w.started.After(since) {
		since = w.started
	}
	switch {
	case time.Since(since) < w.pace.gone:
		return true
	case h.up:
		return time.Since(h.upSince) > settling*w.pace.tick
	}
	return false
}

// covered lists the hosts that the fleet's records call covered.
func (w *world) covered() []*host {
	dir := filepath.Join(w.cfg.DataDir, "state", "records")
	entries, err := os.ReadDir(filepath.Join(dir, "fleet"))
	if err != nil {
		return nil // nobody yet
	}
	var out []*host
	for _, e := range entries {
		var f struct {
			Value struct{ Covered bool }
		}
		var h struct {
			Value struct {
				ID, Name string
				Removed  bool
			}
		}
		if strings.HasPrefix(e.Name(), ".") || !readJSON(filepath.Join(dir, "fleet", e.Name()), &f) || !f.Value.Covered ||
			!readJSON(filepath.Join(dir, "hosts", e.Name()), &h) || h.Value.Removed {
			continue
		}
		if known := w.host(h.Value.Name); known != nil {
			w.mu.Lock()
			known.id = h.Value.ID
			left := slices.Contains(w.uncovered, known.id)
			w.mu.Unlock()
			if !left {
				out = append(out, known)
			}
		}
	}
	return out
}

func readJSON(path string, into any) bool {
	data, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(data, into) == nil
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, fmt.Sprintf(format, args...))
}

// broke says whether a promise was broken.
func (w *world) broke() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.failed) > 0
}

// watchDisks checks the promises now and then until ctx ends: pulls,
// and S4 on every disk.
func (w *world) watchDisks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.pace.look):
		}
		w.checkPulls("in between")
		w.checkGenerations()
	}
}

// checkGenerations: S4, a host's generation never falls and equal generations
// have equal fingerprints everywhere.
func (w *world) checkGenerations() {
	for _, name := range w.names() {
		var t struct {
			Generation  uint64
			Fingerprint certs.Fingerprint
		}
		if !readJSON(filepath.Join(w.host(name).dir, "state", "trusted.json"), &t) {
			continue
		}
		w.mu.Lock()
		print, known := w.prints[t.Generation]
		fell := t.Generation < w.gens[name]
		w.prints[t.Generation], w.gens[name] = t.Fingerprint, t.Generation
		w.mu.Unlock()
		if fell {
			w.fail("S4: the generation of %s fell to %d", name, t.Generation)
		}
		if known && print != t.Fingerprint {
			w.fail("S4: generation %d has two fingerprints", t.Generation)
		}
	}
}

// verdict reports what failed, at the end of a test.
func (w *world) verdict() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("%d handshakes verified for %d hosts' disks, %d rotations, %d transitions, %d broken promises",
		w.shakes, w.pulls, w.rotations, len(w.phases), len(w.failed))
	for _, f := range w.failed[:min(10, len(w.failed))] {
		w.t.Error(f)
	}
	if w.shakes == 0 {
		w.t.Error("no handshake was verified: the test saw nothing")
	}
	if len(w.phases) == 0 {
		w.t.Error("there was no transition: the test saw nothing")
	}
}
