package registry

import (
	"strings"
	"time"

	"github.com/trustcast/trustcast/internal/printable"
)

// setProblem notes what is wrong; nil: nothing.
func (r *Registry) setProblem(err error) {
	text := ""
	if err != nil {
		text = inWords(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if text != "" && (r.problem != text || time.Since(r.told) >= tellEvery) {
		r.told = time.Now()
		r.cfg.Log.Warn("the registry's engine is not as it should be", "err", text)
	}
	if r.problem != "" && text == "" {
		r.cfg.Log.Info("the registry's engine is as it should be")
	}
	r.problem = text
}

// tellEvery is how often the log says what is still wrong.
const tellEvery = 5 * time.Minute

// maxProblem bounds what status and log say is wrong (bytes): some lines that a
// container said last have room.
const maxProblem = 4000

// inWords returns an error's lines for people: a replica may be quoted in them.
func inWords(err error) string {
	text := err.Error()
	lines := strings.Split(text[:min(maxProblem, len(text))], "\n")
	for i, line := range lines {
		lines[i] = printable.Clip(line, maxProblem)
	}
	return strings.Join(lines, "\n")
}
