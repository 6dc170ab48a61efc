package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// outcome is what a site must be after an event.
type outcome struct {
	number, generation uint64
	predecessors       int
	// reach is the oldest generation with which a host verifies what is served.
	reach uint64
	// history has each event with its generation, but for those of gossip.
	history []string
	// stolen: nothing counts that the first CA signed, tokens included.
	stolen bool
	// rolled: gossip has another key. reissued: the control CA has another
	// certificate.
	rolled, reissued bool
}

// rotated is the outcome of some rotations that ended well.
func rotated(n int) outcome {
	want := outcome{number: uint64(n), generation: uint64(1 + 2*n), predecessors: n, reach: 1, history: []string{"created 1"}} //nolint:gosec // a small count
	for i := range n {
		g := 1 + 2*i
		want.history = append(want.history, fmt.Sprint("rotate ", g+1), fmt.Sprint("switch ", g+1), fmt.Sprint("retire ", g+2), fmt.Sprint("done ", g+2))
	}
	return want
}

// authorityRecord is the part of the authority's record that is judged here.
type authorityRecord struct {
	Value struct {
		Rotation struct {
			Phase                 string
			Number, Generation    uint64
			Rollback, Compromised bool
			Restored              bool
			Active, Other         uint64
			Bundle                []uint64
			Chain                 []linkName
			OtherChain            []linkName `json:"other_chain"`
			Reach                 uint64
			OtherReach            uint64 `json:"other_reach"`
			Skipped, Uncover      []string
		}
		CAs []struct {
			ID   uint64
			Cert []byte
			Key  string
		}
		Links []struct {
			linkName
			Cert []byte
			Ends time.Time
		}
		Leaves []struct {
			CA  uint64
			Key string
		}
		History []entry
	}
}

type linkName struct{ CA, By, Generation uint64 }

type entry struct {
	Time       string
	Generation uint64
	Event      string
	// Detail names the hosts that a step left behind.
	Detail string
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func (s *site) authority() (rec authorityRecord, err error) {
	err = readJSON(s.record("authority"), &rec)
	return rec, err
}

// awaitGood waits until a site is all that it must be after an event: a program
// that runs may be in the middle of a write.
func (s *site) awaitGood(want outcome) error {
	return untilIn(soon, "everything is in its place", func() (bool, string) {
		st, err := s.status()
		if err == nil {
			err = s.judge(st, want)
		}
		return err == nil, fmt.Sprint(err)
	})
}

func (s *site) judge(st *pb.Status, want outcome) error {
	rec, err := s.authority()
	if err != nil {
		return err
	}
	return errors.Join(
		judgeRecord(rec, want), s.judgeStatus(st, rec, want), s.judgeKeys(rec), s.judgeServerFiles(), judgeHistory(rec, want),
		s.judgeHosts(st), s.judgeFleet(st, want), s.judgeCopies(rec), s.judgeFirst(want), s.judgeTokens(want), s.judgeControl(want),
	)
}

// judgeRecord: nothing is under way and nothing is left of what was.
func judgeRecord(rec authorityRecord, want outcome) error {
	r := rec.Value.Rotation
	if r.Phase != "idle" || r.Number != want.number || r.Generation != want.generation || r.Reach != want.reach || len(rec.Value.CAs) != 1 {
		return fmt.Errorf("the record is %+v with %d CAs, want %+v", r, len(rec.Value.CAs), want)
	}
	if r.Rollback || r.Compromised || r.Restored || r.Other+r.OtherReach != 0 || len(r.OtherChain)+len(r.Skipped)+len(r.Uncover) != 0 {
		return fmt.Errorf("the record is idle, and something is left in it: %+v", r)
	}
	if !slices.Equal(r.Bundle, []uint64{r.Active}) || rec.Value.CAs[0].ID != r.Active {
		return fmt.Errorf("CA %d is active, the bundle is %v, the record has CA %d", r.Active, r.Bundle, rec.Value.CAs[0].ID)
	}
	for _, leaf := range rec.Value.Leaves {
		if leaf.CA != r.Active {
			return fmt.Errorf("CA %d is active, and there is a leaf of CA %d", r.Active, leaf.CA)
		}
	}
	return judgeLinks(rec, want)
}

// judgeLinks: there are exactly the predecessors that are served, each as long as
// its certificate lives.
func judgeLinks(rec authorityRecord, want outcome) error {
	chain, links := rec.Value.Rotation.Chain, rec.Value.Links
	if len(chain) != want.predecessors || len(links) != want.predecessors {
		return fmt.Errorf("%d links are served and %d are on record, want %d", len(chain), len(links), want.predecessors)
	}
	for i, l := range links {
		cert, err := certs.ParseCertificate(l.Cert)
		if err != nil {
			return err
		}
		if l.linkName != chain[i] || l.Generation == 0 || !l.Ends.Equal(cert.NotAfter) {
			return fmt.Errorf("link %d is %+v and ends %s, served is %+v, its certificate ends %s", i, l.linkName, l.Ends, chain[i], cert.NotAfter)
		}
	}
	return nil
}

// judgeStatus: what the server says is what its disk says.
func (s *site) judgeStatus(st *pb.Status, rec authorityRecord, want outcome) error {
	root, err := certs.ParseCertificate(rec.Value.CAs[0].Cert)
	if err != nil {
		return err
	}
	print := string(certs.FingerprintOf(root))
	if st.GetFingerprint() != print || st.GetServing().GetIssuerFingerprint() != print {
		return fmt.Errorf("status has %.12s served by %.12s, on disk is %.12s", st.GetFingerprint(), st.GetServing().GetIssuerFingerprint(), print)
	}
	if n := int(st.GetServing().GetPredecessors()); n != want.predecessors {
		return fmt.Errorf("%d predecessors are served, want %d", n, want.predecessors)
	}
	for _, h := range st.GetHosts() {
		if h.GetFingerprint() != print {
			return fmt.Errorf("%s has reported %.12s, wanted is %.12s", h.GetName(), h.GetFingerprint(), print)
		}
	}
	return nil
}

// judgeKeys: there are exactly the keys that the records name.
func (s *site) judgeKeys(rec authorityRecord) error {
	control, err := s.control()
	if err != nil {
		return err
	}
	want := []string{control.Value.CAKey + ".key", control.Value.ServerKey + ".key"}
	for _, ca := range rec.Value.CAs {
		if ca.Key != "" { // else only its certificate is left
			want = append(want, ca.Key+".key")
		}
	}
	for _, leaf := range rec.Value.Leaves {
		want = append(want, leaf.Key+".key")
	}
	return holds(filepath.Join(s.serverDir(), "state", "keys"), want...)
}

// judgeServerFiles: records and nothing else, no temporary file anywhere.
func (s *site) judgeServerFiles() error {
	return errors.Join(
		holds(filepath.Join(s.serverDir(), "state"), "admin.sock", "keys", "lock", "records"),
		noTemporary(s.serverDir()),
	)
}

// judgeHistory: each step happened once, in its order. Of the gossip key it has
// lines iff that was replaced; a crash may repeat them.
func judgeHistory(rec authorityRecord, want outcome) error {
	var got []string
	last, rolled := "", false
	for _, e := range rec.Value.History {
		if e.Time[:19] < last {
			return fmt.Errorf("the history goes back in time: %s after %s", e.Time, last)
		}
		last = e.Time[:19] // to the second: fractions have no fixed length
		if e.Event == "gossip" {
			rolled = true
			continue
		}
		got = append(got, fmt.Sprint(e.Event, " ", e.Generation))
	}
	if !slices.Equal(got, want.history) || rolled != want.rolled {
		return fmt.Errorf("the history is %v, want %v; a new gossip key: %v, want %v", got, want.history, rolled, want.rolled)
	}
	return nil
}

// judgeHosts: each host has exactly its files, and its record on the server.
func (s *site) judgeHosts(st *pb.Status) error {
	var errs []error
	for i := range agents {
		roots, err := s.roots(i)
		if err != nil {
			return err
		}
		if got := string(certs.FingerprintOf(roots...)); got != st.GetFingerprint() {
			errs = append(errs, fmt.Errorf("%s has %.12s installed, wanted is %.12s", hostName(i), got, st.GetFingerprint()))
		}
		errs = append(errs, s.judgeFiles(i))
		var identity struct {
			HostID string `json:"host_id"`
		}
		errs = append(errs, readJSON(filepath.Join(s.agentDir(i), "identity.json"), &identity))
		if !slices.ContainsFunc(st.GetHosts(), func(h *pb.Host) bool { return h.GetName() == hostName(i) && h.GetId() == identity.HostID }) {
			errs = append(errs, fmt.Errorf("%s has the ID %s, the server knows %v", hostName(i), identity.HostID, st.GetHosts()))
		}
	}
	return errors.Join(errs...)
}

// judgeFiles: a host has the files of an agent that has run, or of a join alone, and
// nothing else.
func (s *site) judgeFiles(i int) error {
	files := []string{"boot.json", "identity.json", "lock", "owned.json", "status.json", "trusted.json"}
	if _, err := os.Stat(filepath.Join(s.agentDir(i), "run.lock")); err == nil {
		files = append(files, "run.lock")
	}
	return errors.Join(
		holds(s.certsDir(i), s.registry), holds(filepath.Dir(s.installed(i)), "ca.crt"),
		holds(s.agentDir(i), files...),
	)
}

// judgeCopies: certs/ has the one CA that the record has.
func (s *site) judgeCopies(rec authorityRecord) error {
	root, err := certs.ParseCertificate(rec.Value.CAs[0].Cert)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.serverDir(), "certs")
	data, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err == nil && string(data) != string(certs.EncodePEM(root)) {
		err = fmt.Errorf("certs/ca.crt has not the one CA %s, but\n%s", root.Subject.CommonName, data)
	}
	return errors.Join(err, holds(dir, "ca.crt", "domain.crt"))
}

// holds says what a directory has too much or too little.
func holds(dir string, want ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s holds %v, want %v", dir, got, want)
	}
	return nil
}

// noTemporary looks for what a killed write leaves.
func noTemporary(dir string) error {
	var found []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), ".") {
			found = append(found, path)
		}
		return err
	})
	if len(found) > 0 {
		return fmt.Errorf("temporary files are left: %v", found)
	}
	return err
}
