package direct

import "testing"

func TestNames(t *testing.T) {
	for path, want := range map[string][3]string{
		"/v2/app/manifests/latest":        {"app", "manifests", "latest"},
		"/v2/a/b-c/d_e/blobs/sha256:0":    {"a/b-c/d_e", "blobs", "sha256:0"},
		"/v2/a/manifests/manifests/blobs": {"a/manifests", "manifests", "blobs"},
		"/v2/a/../b/manifests/latest":     {},
		"/v2/a/./b/manifests/latest":      {},
		"/v2/A/manifests/latest":          {},
		"/v2//manifests/latest":           {},
		"/v2/manifests/latest":            {},
		"/v2/a/manifests/":                {"a", "manifests", ""},
		"/v2/a--b/manifests/latest":       {}, // a good name, and odd
		"/v2/_catalog":                    {},
		"/v2/a/_manifests/tags/x/current": {},
		"/v2/-a/manifests/latest":         {},
		"/v2/a-/manifests/latest":         {},
		"/v2/a/manifests/latest/":         {"a/manifests", "latest", ""},
		"/v3/a/manifests/latest":          {},
		"/v2/a\x00b/manifests/latest":     {},
		"/v2/a/tags/list":                 {"a", "tags", "list"},
		"/v2/a/blobs/uploads/0-0":         {"a/blobs", "uploads", "0-0"},
	} {
		repository, kind, reference := split(path)
		if got := [3]string{repository, kind, reference}; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for reference, want := range map[string]bool{"latest": true, "1.2-3_4": true, "_": true, "": false, ".": false, "..": false, ".a": false, "-a": false, "a/b": false, "sha256:00": false, "ü": false} {
		if isTag(reference) != want {
			t.Errorf("%q is a tag: %v", reference, !want)
		}
	}
}
