package printable

import (
	"bytes"
	"strings"
	"testing"
)

func TestRune(t *testing.T) {
	for in, want := range map[string]string{
		"level=info\tmsg=ä": "level=info\tmsg=ä",
		"\x1b[2Jgone":       "?[2Jgone",
		"\u009b31m\a\r\n":   "?31m???",
		"":                  "",
	} {
		if got := strings.Map(Rune, in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
		if got := bytes.Map(Rune, []byte(in)); string(got) != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
