package doctor

import (
	"os"
	"strings"
)

// mostInHome findings of a home are told: its user could bury the others.
const mostInHome = 50

// inHome looks at a place with the rights of the user whose home it is in, if it is in
// one, and puts findings so that root, who reads them, does nothing there: what is there
// may lead anywhere by then.
func (e *exam) inHome(p Place, look func(*exam)) error {
	if p.Home == "" || p.UID == os.Geteuid() {
		look(e)
		return nil
	}
	theirs := *e
	theirs.found = nil
	err := e.As(p.UID, p.GID, func() error {
		look(&theirs)
		return nil
	})
	if err != nil {
		return err // it may go on: nothing of it counts
	}
	_, user, _ := strings.Cut(p.Runtime, ":")
	if found := theirs.found; len(found) > mostInHome {
		theirs.found = found[:mostInHome]
		theirs.add("files.unseen", Verdict(found[mostInHome:]), p.Home, "", "%d other things were found in %s: mend these first", len(found)-mostInHome, p.Home)
	}
	for _, c := range theirs.found {
		switch c.Fix {
		case "", mend:
		case asRoot:
			c.Fix = "" // it is root who asks, with that user's rights
		default:
			c.Fix = "as " + user + ", not as root: " + c.Fix
		}
		e.found = append(e.found, c)
	}
	return nil
}
