package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/sirupsen/logrus"
)

// steerLogs sends what distribution says to log: it writes to logrus's global
// logger and takes no other. Below a warning it says something at each request,
// which the edge counts.
func steerLogs(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	hook := bridge{log}
	hooks := logrus.LevelHooks{}
	hooks.Add(hook)
	std.ReplaceHooks(hooks)
}

// bridge hands logrus entries to slog.
type bridge struct{ log *slog.Logger }

// Levels are those that reach an operator.
func (bridge) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

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
	if _, asked := e.Data["http.request.id"]; e.Level == logrus.WarnLevel || asked && !answered {
		level = slog.LevelWarn // on the way to an answer; if that is an error, it is logged, too
	}
	attrs := []slog.Attr{slog.String("engine", "embedded")}
	for _, k := range kept {
		if value, ok := e.Data[k.field]; ok {
			text := fmt.Sprint(value)
			if k.key == "path" {
				text, _, _ = strings.Cut(text, "?") // the state of an upload is long and says nothing
			}
			attrs = append(attrs, slog.String(k.key, text))
		}
	}
	b.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}
