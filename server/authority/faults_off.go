//go:build !faults

package authority

// faulty is false in every normal build.
func faulty(string) bool { return false }

// leafHost is the name in a new leaf.
func (maker) leafHost(host string) string { return host }
