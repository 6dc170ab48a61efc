package server

import (
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	const s, h = time.Second, time.Hour
	for _, test := range []struct {
		name  string
		skews []time.Duration
		want  time.Duration
	}{
		{"nobody", nil, 0},
		{"one decides", []time.Duration{3 * h}, 3 * h},
		{"one of two cannot", []time.Duration{3 * h, s}, s},
		{"one of two cannot, behind", []time.Duration{-3 * h, -s}, -s},
		{"two that disagree", []time.Duration{-3 * h, 2 * h}, 2 * h},
		{"one of three cannot", []time.Duration{s, 1000 * h, -s}, s},
		{"two of three can", []time.Duration{2 * h, s, 3 * h}, 2 * h},
		{"two of four cannot", []time.Duration{2 * h, s, 3 * h, 0}, s},
		{"three of four can", []time.Duration{-2 * h, s, -3 * h, -4 * h}, -2 * h},
	} {
		if got := median(test.skews); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestPausedText(t *testing.T) {
	t.Parallel()
	if text := pausedText(59*time.Minute, false); text != "" {
		t.Errorf("not paused: %q", text)
	}
	if text := pausedText(2*time.Hour, true); !strings.Contains(text, "2h0m0s behind its hosts") {
		t.Errorf("hosts are ahead: %q", text)
	}
	if text := pausedText(-2*time.Hour, true); !strings.Contains(text, "2h0m0s ahead of its hosts") {
		t.Errorf("hosts are behind: %q", text)
	}
}
