package manual

import (
	"slices"
	"testing"
	"time"
)

type inner struct {
	Name string `json:"name"`
}

type outer struct {
	inner
	// Since is when it began.
	Since *time.Time `json:"since"`
	Items []inner    `json:"items"`
	Words []string   `json:"words"`
	One   *inner     `json:"one"`
}

func TestKeys(t *testing.T) {
	comments, err := ReadComments(".")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Keys(outer{}, comments)
	want := []Key{
		{"name", "string", ""}, {"since", "time or null", "when it began"}, {"items", "list of objects", ""}, {"items[].name", "string", ""},
		{"words", "list of strings", ""}, {"one", "object or null", ""}, {"one.name", "string", ""},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for what, bad := range map[string]any{
		"a key that may be left out": struct {
			A string `json:"a,omitempty"`
		}{},
		"a key in another case": struct {
			A string `json:"aKey"`
		}{},
		"a key that nobody named": struct{ A string }{},
		"whatever": struct {
			A map[string]any `json:"a"`
		}{},
	} {
		if keys, err := Keys(bad, comments); err == nil {
			t.Errorf("%s is taken: %v", what, keys)
		}
	}
}
