package registry

import (
	"strings"
	"testing"
)

// What a dead replica said is in errors, in the log and in `registry status`, and
// with log.level info it says what signs it in.
func TestLastWordsHaveNoSecrets(t *testing.T) {
	got := telling(`time="2026-01-02T03:04:05Z" level=info msg="configuring endpoint ci (https://u:hunter2@h/x), timeout=1s, headers=map[Authorization:[Bearer hunter2]]" go.version=go1.25
time="2026-01-02T03:04:05Z" level=info msg="configuring HTTP health check uri=https://u:hunter2@h/, interval=1, threshold=0"
panic: the end
`)
	if strings.Contains(got, "hunter2") {
		t.Errorf("told %s", got)
	}
	for _, want := range []string{"configuring endpoint ci (https://(secret)@h/x)", "uri=https://(secret)@h/, interval=1", "panic: the end"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
