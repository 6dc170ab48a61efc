package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/users"
)

// examineData says what is on the disk, the same whether a server runs or not. It reads
// and nothing else.
func examineData(l layout, cfg Config, f *findings) {
	examineSpace(l, cfg, f)
	examinePermissions(l, f)
	keys := records.ReadKeys(l.keys())
	s, held, ok := examineRecords(l.readRecords, keys, f)
	if !ok {
		return
	}
	examineKeys(keys, held, f)
	examineEnds(held, time.Now(), f)
	examineUsers(s, f)
	examineBackup(s, held, f)
}

func (l layout) readRecords() (records.Snapshot, error) { return records.ReadSnapshot(l.records()) }

// examineRecords: every record can be read, and what they name fits together.
func examineRecords(read func() (records.Snapshot, error), keys *records.Keys, f *findings) (s records.Snapshot, held []records.Held, ok bool) {
	s, held, err := readHeld(read)
	if err == nil && slices.ContainsFunc(held, func(h records.Held) bool { return h.Key != "" && keys.Check(h) != nil }) {
		// A server that runs may have destroyed that key since: its records have
		// forgotten it before.
		s, held, err = readHeld(read)
	}
	if err != nil {
		text, fix := recordsProblem(err)
		f.fail("state.records", "", text, fix)
		return s, nil, false
	}
	f.ok("state.records", "", counted(len(s.Names()), "record")+" can be read and fit together")
	return s, held, true
}

// readHeld reads the records, and the certificates that they have.
func readHeld(read func() (records.Snapshot, error)) (records.Snapshot, []records.Held, error) {
	s, err := read()
	if err == nil {
		_, err = describe(s)
	}
	if err != nil {
		return s, nil, err
	}
	ca, err := authority.Held(s)
	if err != nil {
		return s, nil, err
	}
	control, err := identity.Held(s)
	return s, slices.Concat(ca, control), err
}

// examineKeys: the key of each certificate is there, whole, and its own.
func examineKeys(keys *records.Keys, held []records.Held, f *findings) {
	bad, named := 0, map[records.KeyID]bool{}
	for _, h := range held {
		if h.Key == "" {
			continue // the adopted CA's was never here
		}
		named[h.Key] = true
		if err := keys.Check(h); err != nil {
			bad++
			text, fix := advised(err.Error())
			f.fail("state.keys", h.What+" "+h.Subject, text, fix)
		}
	}
	if bad == 0 {
		f.ok("state.keys", "", fmt.Sprintf("the keys of %s are there and match", counted(len(named), "certificate")))
	}
	ids, err := keys.List()
	if err != nil {
		return // said above, for each key
	}
	left := slices.DeleteFunc(ids, func(id records.KeyID) bool { return named[id] })
	if len(left) > 0 {
		f.ok("state.keys", "", counted(len(left), "key")+" left that no record names; the next start destroys what is left over")
	}
}

// examineEnds: certificates that are not replaced in time.
func examineEnds(held []records.Held, now time.Time, f *findings) {
	for _, h := range held {
		if !h.Serving {
			continue
		}
		c := named(h.What, h.Made, h.Ends, h.Adopted)
		id, subject := "certificate."+h.What, h.Subject
		text := fmt.Sprintf("%s (%s) ends on %s", c.text, subject, h.Ends.UTC().Format(time.DateOnly))
		switch level := urgency(c.made, c.ends, now); {
		case level > len(notice):
			f.fail(id, subject, fmt.Sprintf("%s (%s) has ended on %s", c.text, subject, h.Ends.UTC().Format(time.DateOnly)), c.advice)
		case level > 0:
			f.warn(id, subject, text, c.advice)
		default:
			f.ok(id, subject, text)
		}
	}
}

func examineUsers(s records.Snapshot, f *findings) {
	switch names, err := users.NamesIn(s); {
	case err != nil:
		text, fix := advised(err.Error())
		f.fail("users.any", "", text, fix)
	case len(names) == 0:
		f.warn("users.any", "", "the registry has no users, every request gets 401", "add one with `trustcast user add NAME`")
	default:
		f.ok("users.any", "", counted(len(names), "user")+" may sign in")
	}
}

// backupOld is when hosts, users and images of a backup are of another time.
const backupOld = 30 * day

func examineBackup(s records.Snapshot, held []records.Held, f *findings) {
	var b backupMade
	if _, err := s.Get(backupRecord, &b); err != nil && !errors.Is(err, records.ErrNotFound) {
		f.fail("state.backup", "", err.Error(), "make a backup with `trustcast backup FILE`, which writes the record anew")
		return
	}
	lacks := b.lacking(func() bool {
		return slices.ContainsFunc(held, func(h records.Held) bool {
			return h.What == "registry_ca" && h.Serving && (h.Key == "" || slices.Contains(b.CAs, certs.FingerprintOf(h.Cert)))
		})
	})
	switch age := time.Since(b.Made); {
	case lacks != "":
		text, fix := advised(lacks)
		f.warn("state.backup", "", text, fix)
	case age > backupOld:
		f.warn("state.backup", "", fmt.Sprintf("the newest backup is %s old", roughly(age)), "make another with `trustcast backup FILE`")
	case b.Damaged > 0:
		f.warn("state.backup", "", fmt.Sprintf("the newest backup is without %d damaged images", b.Damaged), "push these images again; `trustcast backup FILE` names them")
	default:
		f.ok("state.backup", "", fmt.Sprintf("the newest backup is of %s and has the active CA", b.Made.UTC().Format(time.DateTime+" MST")))
	}
}

// examineSpace compares what is free with what pushes and records need.
func examineSpace(l layout, cfg Config, f *findings) {
	free, err := edge.FreeIn(l.dir)()
	if err != nil {
		f.fail("disk.free", l.dir, err.Error(), "see that the data directory is mounted")
		return
	}
	least := cfg.minFree()
	text := fmt.Sprintf("%s free for the data, pushes need %s", units.BytesSize(float64(free)), units.BytesSize(float64(least)))
	const fix = "delete images and run `trustcast registry gc`, or give the disk more room"
	switch {
	case free < least/4:
		f.fail("disk.free", l.dir, text+": even the reserve of the server's records is used", fix)
	case free < least:
		f.fail("disk.free", l.dir, text+": they get 507, pulls go on", fix)
	case free < 2*least:
		f.warn("disk.free", l.dir, text, fix)
	default:
		f.ok("disk.free", l.dir, text)
	}
}

// examinePermissions: nobody else can read keys, or put others in their place.
func examinePermissions(l layout, f *findings) {
	bad := 0
	say := func(path, text, fix string) {
		bad++
		f.fail("state.permissions", path, text, fix)
	}
	owner := ownerOf(l.state())
	err := filepath.WalkDir(l.state(), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		switch perm := info.Mode().Perm(); {
		case bad >= mostHosts:
			return fs.SkipAll
		case info.Mode().Type() == fs.ModeSymlink:
			say(path, path+" is a link: whoever can write where it leads can put other keys there", "put the directory itself there")
		case perm&0o077 != 0 && d.IsDir():
			say(path, fmt.Sprintf("%s has mode %04o, so that others can look into it", path, perm), "run `chmod 700 "+path+"`")
		case perm&0o077 != 0 && !strings.HasSuffix(path, ".sock"):
			say(path, fmt.Sprintf("%s has mode %04o, so that others can read it", path, perm), "run `chmod 600 "+path+"`; if it is a key, have it replaced: `trustcast ca rotate --compromised`")
		case ownerOf(path) != owner:
			say(path, fmt.Sprintf("%s belongs to uid %d and the directory to uid %d", path, ownerOf(path), owner), fmt.Sprintf("run `chown %d %s`", owner, path))
		}
		return nil
	})
	switch {
	case err != nil:
		f.fail("state.permissions", l.state(), err.Error(), "become the user that the server runs as, for example with sudo")
	case bad == 0:
		f.ok("state.permissions", l.state(), "only the server's user can read the state directory")
	}
}

// ownerOf is the uid of a file, -1 when it is gone.
func ownerOf(path string) int {
	info, err := os.Lstat(path)
	if err != nil {
		return -1
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}
