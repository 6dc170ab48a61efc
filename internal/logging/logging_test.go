package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func none(string) string { return "" }

// write logs a line of each level and returns what was written.
func write(t *testing.T, format, level string) string {
	t.Helper()
	var out bytes.Buffer
	log, err := New(&out, none, format, level)
	if err != nil {
		t.Fatal(err)
	}
	log = log.With("who", "me").WithGroup("g")
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		log.Log(t.Context(), l, "it happened", "level", "a\nb")
	}
	return out.String()
}

func TestJournal(t *testing.T) {
	t.Parallel()
	line := `msg="it happened" who=me g.level="a\nb"` + "\n"
	if got, want := write(t, "journal", "debug"), "<7>"+line+"<6>"+line+"<4>"+line+"<3>"+line; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := write(t, "journal", "warn"), "<4>"+line+"<3>"+line; got != want {
		t.Errorf("from warn on: got\n%swant\n%s", got, want)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	if got := write(t, "auto", ""); !strings.HasPrefix(got, "time=") || strings.Count(got, "\n") != 3 || strings.Contains(got, "level=DEBUG") {
		t.Errorf("auto, to no journal:\n%s", got)
	}
	first, _, _ := strings.Cut(write(t, "json", "error"), "\n")
	var line map[string]any
	if err := json.Unmarshal([]byte(first), &line); err != nil || line["level"] != "ERROR" || line["msg"] != "it happened" {
		t.Errorf("json from error on: %s (%v)", first, err)
	}
	for _, wrong := range [][2]string{{"xml", ""}, {"", "loud"}, {"", "info+3"}} {
		if _, err := New(&bytes.Buffer{}, none, wrong[0], wrong[1]); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}

// The journal is found by what stderr is, not by the variable alone: a child of a
// service inherits that.
func TestJournalIsFound(t *testing.T) {
	t.Parallel()
	for _, ours := range []bool{true, false} {
		file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		inode := stat.Ino
		if !ours {
			inode++
		}
		log, err := New(file, func(name string) string {
			if name != "JOURNAL_STREAM" {
				return ""
			}
			return fmt.Sprintf("%d:%d", stat.Dev, inode)
		}, "auto", "")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hello")
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if (string(got) == "<6>msg=hello\n") != ours {
			t.Errorf("the journal's stream: %v; written: %s", ours, got)
		}
	}
}
