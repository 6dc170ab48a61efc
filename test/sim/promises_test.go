package sim

import (
	"context"
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
	w.checkBundle(rec)
	w.checkGate(event, rec)
	w.mu.Lock()
	w.uncovered = rec.Value.Rotation.Uncover
	w.closed = rec.Value.Rotation.Restored
	if event == "open" {
		w.opened = time.Now()
	}
	if rec.Value.Rotation.Active != w.last.Value.Rotation.Active {
		w.servedBefore, w.servedUntil = w.last, time.Now()
	}
	w.last = rec
	w.mu.Unlock()
	w.checkPulls("at " + event)
	w.mu.Lock()
	w.phases = append(w.phases, phase)
	switch event {
	case "rotate":
		w.rotations++
	case "switch":
		w.switches++
	}
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
		if has := rec.hasKey(ca.ID); has != (ca.ID == r.Active || ca.ID == r.Other) {
			w.fail("S3: CA %d has a key: %v, with %d active and %d other", ca.ID, has, r.Active, r.Other)
		}
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

// idOf is a host's ID as covered saw it last.
func (w *world) idOf(h *host) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.id
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
	w.t.Logf("hosts checked at switches: %d, at retires: %d; handshakes that failed and may: %v", w.switchers, w.retirers, w.excused)
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
