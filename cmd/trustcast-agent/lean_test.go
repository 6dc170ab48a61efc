package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestLeanHeedsTheEnvironment(t *testing.T) {
	processors := runtime.GOMAXPROCS(3)
	percent := debug.SetGCPercent(77)
	defer func() { runtime.GOMAXPROCS(processors); debug.SetGCPercent(percent) }()
	said := map[string]string{"GOMAXPROCS": "3", "GOGC": "77"}
	lean(func(name string) string { return said[name] })
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("%d processors although the environment says 3", got)
	}
	if got := debug.SetGCPercent(77); got != 77 {
		t.Errorf("garbage of %d%% although the environment says 77", got)
	}
	lean(func(string) string { return "" })
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("%d processors, want 1", got)
	}
	if got := debug.SetGCPercent(77); got != garbage {
		t.Errorf("garbage of %d%%, want %d%%", got, garbage)
	}
}
