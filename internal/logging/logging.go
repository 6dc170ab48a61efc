// Package logging makes the log of both programs: text, JSON, or lines with a
// priority for the journal of systemd.
//
// It decides how a line looks and which are left out. What is logged, and where that
// goes, is decided elsewhere. There is no colour: a line is the same in a terminal and in
// a file.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
)

// Formats are the values of --log-format, the default first: auto is journal when w is
// systemd's journal, and text anywhere else.
func Formats() []string { return []string{auto, text, inJSON, journal} }

// Levels are the values of --log-level, the default first.
func Levels() []string { return []string{"info", "debug", "warn", "error"} }

const (
	auto    = "auto"
	text    = "text"
	inJSON  = "json"
	journal = "journal"
)

// New returns a log to w. format is one of Formats and level one of Levels, empty for the
// default; another one is an error that names the flag. getenv is asked for
// JOURNAL_STREAM.
func New(w io.Writer, getenv func(string) string, format, level string) (*slog.Logger, error) {
	var least slog.Level
	if level != "" {
		if err := least.UnmarshalText([]byte(level)); err != nil || !known(Levels(), level) {
			return nil, fmt.Errorf("--log-level %q is none of %s", level, strings.Join(Levels(), ", "))
		}
	}
	opts := &slog.HandlerOptions{Level: least}
	if (format == auto || format == "") && toJournal(w, getenv("JOURNAL_STREAM")) {
		format = journal
	}
	switch format {
	case "", auto, text:
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case inJSON:
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case journal:
		return slog.New(newJournal(w, least)), nil
	}
	return nil, fmt.Errorf("--log-format %q is none of %s", format, strings.Join(Formats(), ", "))
}

func known(values []string, value string) bool {
	for _, v := range values {
		if v == value {
			return true
		}
	}
	return false
}

// toJournal says whether w is the stream that systemd says it connected to the journal
// (DEVICE:INODE). The variable alone proves nothing: children inherit it with another
// stderr.
func toJournal(w io.Writer, stream string) bool {
	file, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	info, err := file.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
