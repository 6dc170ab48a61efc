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

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		most int
		want string
	}{
		{"plain", 5, "plain"},
		{"plain", 4, "plai"},
		{"\x1b[2J\xffx\n", 10, " [2Jx "},
		{"caf\u20ac", 5, "caf"}, // not half of it
		{"\u202ex", 10, " x"},   // which turns the line around
	} {
		if got := Clip(c.in, c.most); got != c.want {
			t.Errorf("%q is %q, want %q", c.in, got, c.want)
		}
	}
}
