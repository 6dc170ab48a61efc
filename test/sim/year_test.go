package sim

import (
	"os"
	"testing"
)

// prove skips what takes minutes, unless `make prove` runs it.
func prove(t *testing.T) {
	t.Helper()
	if os.Getenv("TRUSTCAST_PROVE") == "" {
		t.Skip("takes minutes: run it by `make prove`, or set TRUSTCAST_PROVE=1")
	}
}

// TestMonth: a month of a small organisation.
func TestMonth(t *testing.T) {
	organise(t, plan{
		hosts: 30, length: 30 * day, away: 0.1,
		partition: 5 * day, restart: 4 * day, remove: 10 * day, reinstall: 10 * day, clone: 10 * day, backup: 12 * day,
	})
}

// TestYear: a year of an organisation with 200 hosts and weekly rotations.
func TestYear(t *testing.T) {
	prove(t)
	organise(t, plan{
		hosts: 200, length: 365 * day, away: 0.05,
		partition: 10 * day, restart: 12 * day, remove: 30 * day, reinstall: 30 * day, clone: 30 * day, backup: 40 * day, forgotten: 3, outlived: 5,
	})
}
