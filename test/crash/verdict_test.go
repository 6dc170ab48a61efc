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

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// authorityRecord is the part of the authority's record that is judged here.
type authorityRecord struct {
	Value struct {
		Rotation struct {
			Phase      string
			Number     uint64
			Generation uint64
		}
		CAs []struct {
			Cert []byte
			Key  string
		}
		Leaves  []struct{ Key string }
		History []struct {
			Time       string
			Generation uint64
			Event      string
		}
	}
}

type controlRecord struct {
	Value struct {
		CAKey     string `json:"ca_key"`
		ServerKey string `json:"server_key"`
	}
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

// awaitGood waits until a site is all that it must be after some rotations that
// have ended well: a program that runs may be in the middle of a write.
func (s *site) awaitGood(rotations int) error {
	return untilIn(soon, "everything is in its place", func() (bool, string) {
		st, err := s.status()
		if err == nil {
			err = s.judge(st, rotations)
		}
		return err == nil, fmt.Sprint(err)
	})
}

func (s *site) judge(st *pb.Status, rotations int) error {
	rec, err := s.authority()
	if err != nil {
		return err
	}
	return errors.Join(
		s.judgeStatus(st, rec, rotations), s.judgeKeys(rec), s.judgeServerFiles(), s.judgeHistory(rec, rotations),
		s.judgeHosts(st), s.judgeCopies(rec),
	)
}

// judgeStatus: what the server says is what its disk says.
func (s *site) judgeStatus(st *pb.Status, rec authorityRecord, rotations int) error {
	generation := uint64(1 + 2*rotations) //nolint:gosec // a small count
	r := rec.Value.Rotation
	if r.Phase != "idle" || r.Number != uint64(rotations) || r.Generation != generation || len(rec.Value.CAs) != 1 { //nolint:gosec // a small count
		return fmt.Errorf("the record is %+v with %d CAs after %d rotations", r, len(rec.Value.CAs), rotations)
	}
	root, err := certs.ParseCertificate(rec.Value.CAs[0].Cert)
	if err != nil {
		return err
	}
	want := string(certs.FingerprintOf(root))
	if st.GetFingerprint() != want || st.GetServing().GetIssuerFingerprint() != want {
		return fmt.Errorf("status has %.12s served by %.12s, on disk is %.12s", st.GetFingerprint(), st.GetServing().GetIssuerFingerprint(), want)
	}
	if n := int(st.GetServing().GetPredecessors()); n != rotations {
		return fmt.Errorf("%d predecessors are served after %d rotations", n, rotations)
	}
	for _, h := range st.GetHosts() {
		if h.GetFingerprint() != want {
			return fmt.Errorf("%s has reported %.12s, wanted is %.12s", h.GetName(), h.GetFingerprint(), want)
		}
	}
	return nil
}

// judgeKeys: there are exactly the keys that the records name.
func (s *site) judgeKeys(rec authorityRecord) error {
	var control controlRecord
	if err := readJSON(s.record("control"), &control); err != nil {
		return err
	}
	want := []string{control.Value.CAKey + ".key", control.Value.ServerKey + ".key"}
	for _, ca := range rec.Value.CAs {
		want = append(want, ca.Key+".key")
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

// judgeHistory: each step of each rotation happened once, in its order.
func (s *site) judgeHistory(rec authorityRecord, rotations int) error {
	want := []string{"created 1"}
	for i := range rotations {
		g := 1 + 2*i
		want = append(want, fmt.Sprint("rotate ", g+1), fmt.Sprint("switch ", g+1), fmt.Sprint("retire ", g+2), fmt.Sprint("done ", g+2))
	}
	var got []string
	last := ""
	for _, e := range rec.Value.History {
		got = append(got, fmt.Sprint(e.Event, " ", e.Generation))
		if e.Time[:19] < last {
			return fmt.Errorf("the history goes back in time: %s after %s", e.Time, last)
		}
		last = e.Time[:19] // to the second: fractions have no fixed length
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("the history is %v, want %v", got, want)
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

// judgeFiles: a host has the files of an agent and nothing else.
func (s *site) judgeFiles(i int) error {
	return errors.Join(
		holds(s.certsDir(i), s.registry), holds(filepath.Dir(s.installed(i)), "ca.crt"),
		holds(s.agentDir(i), "boot.json", "identity.json", "lock", "owned.json", "status.json", "trusted.json"),
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
