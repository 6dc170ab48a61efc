//go:build !faults

package edge

// passWrongName is false in every normal build.
func passWrongName(string) bool { return false }
