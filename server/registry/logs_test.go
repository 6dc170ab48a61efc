package registry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// Distribution says where notifications go, and with what it signs in there.
func TestLogHasNoSecrets(t *testing.T) {
	var lines bytes.Buffer
	newEmbedded(t, EmbeddedConfig{Root: t.TempDir(), Log: slog.New(slog.NewTextHandler(&lines, nil)), Parameters: given(t, `log: {level: info}
notifications: {endpoints: [{name: ci, url: 'https://u:hunter2@h/x', headers: {Authorization: [hunter2]}}]}`)})
	if got := lines.String(); !strings.Contains(got, "configuring endpoint ci (https://(secret)@h/x)") || strings.Contains(got, "hunter2") {
		t.Errorf("logged %s", got)
	}
}
