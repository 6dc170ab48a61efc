package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/sirupsen/logrus"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

// steerLogs sends what distribution says to log: it writes to logrus's global
// logger and takes no other. Below a warning it says something at each request,
// which the edge counts.
func steerLogs(log *slog.Logger, cfg configuration.Log) {
	level, err := logrus.ParseLevel(string(cfg.Level))
	if err != nil {
		level = logrus.WarnLevel
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Fields)) {
		log = log.With(name, fmt.Sprint(cfg.Fields[name]))
	}
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(level)
	hooks := logrus.LevelHooks{}
	hooks.Add(bridge{log})
	std.ReplaceHooks(hooks)
}

// bridge hands logrus entries to slog.
type bridge struct{ log *slog.Logger }

// Levels are all: the logger drops those that the operator does not want.
func (bridge) Levels() []logrus.Level { return logrus.AllLevels }

// kept are the fields worth a line, under this program's keys.
var kept = []struct{ field, key string }{
	{"http.request.method", "method"},
	{"http.request.uri", "path"},
	{"http.request.remoteaddr", "client"},
	{"err.message", "err"},
	{"err.detail", "detail"},
	{logrus.ErrorKey, "err"},
}

// Fire writes one line, but for what is the client's own affair: distribution
// calls it an error when a push asks whether a blob is there already.
func (b bridge) Fire(e *logrus.Entry) error {
	code, answered := e.Data["err.code"].(errcode.ErrorCoder)
	if answered && code.ErrorCode().Descriptor().HTTPStatusCode < http.StatusInternalServerError {
		return nil
	}
	if err, ok := e.Data[logrus.ErrorKey].(error); ok && errors.Is(err, context.Canceled) {
		return nil // the client went away
	}
	level := slog.LevelError
	_, asked := e.Data["http.request.id"]
	switch {
	case e.Level >= logrus.DebugLevel:
		level = slog.LevelDebug
	case e.Level == logrus.InfoLevel:
		level = slog.LevelInfo
	case e.Level == logrus.WarnLevel, asked && !answered:
		level = slog.LevelWarn // on the way to an answer; if that is an error, it is logged, too
	}
	attrs := []slog.Attr{slog.String("engine", "embedded")}
	for _, k := range kept {
		if value, ok := e.Data[k.field]; ok {
			text := fmt.Sprint(value)
			if k.key == "path" {
				text, _, _ = strings.Cut(text, "?") // the state of an upload is long and says nothing
			}
			attrs = append(attrs, slog.String(k.key, withoutSecrets(text)))
		}
	}
	b.log.LogAttrs(context.Background(), level, withoutSecrets(e.Message), attrs...)
	return nil
}

// withoutSecrets hides those that distribution says: the headers that sign it in at an
// endpoint of notifications, and passwords in URLs.
func withoutSecrets(text string) string {
	text, _, _ = strings.Cut(text, ", headers=")
	return parameters.WithoutPassword(text)
}
