package certs

// Outcome is what a handshake with the edge showed.
type Outcome string

// The outcomes of DESIGN §4. Only Refused holds a rotation.
const (
	// NotTried: there was nothing to try.
	NotTried Outcome = ""
	// OK: the expected leaf was shown and verified.
	OK Outcome = "ok"
	// Refused: the expected leaf was shown and not verified.
	Refused Outcome = "refused"
	// Intercepted: another certificate was shown, for example by a proxy.
	Intercepted Outcome = "intercepted"
	// Unresolved: the name has no address and the advertised one did not answer.
	Unresolved Outcome = "unresolved"
	// Unreachable: no connection.
	Unreachable Outcome = "unreachable"
)

// Evidence is what a host has and what it proved about it, after re-reading its
// files. Each part alone can be vacuous: a host with only the old root passes a
// handshake through the predecessors.
type Evidence struct {
	// Boot and Sequence order a host's reports: later boots win.
	Boot, Sequence uint64
	// Revision is that of the wanted state which this answers.
	Revision uint64
	// Rotation is the rotation's number there.
	Rotation uint64
	// Generation and Fingerprint are of the files as re-read.
	Generation  uint64
	Fingerprint Fingerprint
	// SoloRoots are the re-read roots that alone verify the leaf they issued.
	SoloRoots []Fingerprint
	// Offline: files and effective directories are right.
	Offline bool
	// Probe and Live are handshakes with the future and with the served chain.
	Probe, Live Outcome
	// Problem says what is wrong, in words.
	Problem string
}

// NewerThan orders reports of one host.
func (e Evidence) NewerThan(old Evidence) bool {
	return e.Boot > old.Boot || e.Boot == old.Boot && e.Sequence > old.Sequence
}
