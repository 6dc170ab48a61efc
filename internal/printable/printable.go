// Package printable keeps what others wrote from acting on a terminal.
package printable

import (
	"strings"
	"unicode"
)

// Rune returns r, or '?' for a control character other than a tab; for strings.Map
// and bytes.Map.
func Rune(r rune) rune {
	if unicode.IsControl(r) && r != '\t' {
		return '?'
	}
	return r
}

// Clip bounds a text from others to so many bytes of printable characters: it
// reaches operators' terminals, and half a character would make a whole status
// unsendable.
func Clip(s string, most int) string {
	s = strings.ToValidUTF8(s[:min(most, len(s))], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
