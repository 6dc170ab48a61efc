// Package printable keeps what others wrote from acting on a terminal.
package printable

import "unicode"

// Rune returns r, or '?' for a control character other than a tab; for strings.Map
// and bytes.Map.
func Rune(r rune) rune {
	if unicode.IsControl(r) && r != '\t' {
		return '?'
	}
	return r
}
