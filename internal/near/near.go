// Package near finds the word that somebody meant: for errors about names that
// do not exist.
package near

import "strings"

// longest word that is compared; none that anybody means is longer.
const longest = 64

// Word returns the known word that is a typing mistake or two away from word, in
// any case of letters; empty: none is.
func Word(word string, known []string) string {
	if len(word) > longest {
		return ""
	}
	best, least := "", min(2, len(word)/2)+1
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the letters to change, add or remove (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := left
			if a[i] != b[j] {
				change++
			}
			left = row[j+1]
			row[j+1] = min(change, row[j]+1, left+1)
		}
	}
	return row[len(b)]
}
