package printable

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzClip is for bytes that no protobuf string lets through.
func FuzzClip(f *testing.F) {
	for _, s := range []string{"", "plain", "caf\u00e9", "\x00\x1b[31m", "\xff\xfe", "\u00e9\xe2\x82", "\u202e\u2066\ufeff"} {
		f.Add(s, 5)
	}
	f.Fuzz(func(t *testing.T, s string, most int) {
		most &= 1023
		got := Clip(s, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: %d bytes, %d are allowed, or not fit for a terminal", got, len(got), most)
		}
		if again := Clip(got, most); again != got {
			t.Errorf("%q becomes %q, then %q", s, got, again)
		}
	})
}
