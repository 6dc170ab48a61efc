package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/trustcast/trustcast/certs"
)

// registriesDir in the data directory has one directory a membership, but for the
// first, whose files are in the data directory itself. Each is called after the
// server's address as it was given to join: that is known before enrolment.
const registriesDir = "registries"

// seats lists the directories of the memberships of a data directory, the first one's
// first. One in which a join is not through has no identity, and is not listed.
func seats(dataDir string) ([]string, error) {
	all, err := further(dataDir)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(dir string) bool { return !store{dir}.has(identityFile) })
	if (store{dataDir}).has(identityFile) {
		all = slices.Insert(all, 0, dataDir)
	}
	return all, nil
}

// further lists the directories that are not the first membership's, in the order of
// their names, whatever is in them.
func further(dataDir string) (all []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dataDir, registriesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for registries: %w", forWhom(err))
	}
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, filepath.Join(dataDir, registriesDir, e.Name()))
		}
	}
	return all, nil
}

// at is the configuration of the membership in dir. Server and token are another's.
func (cfg Config) at(dir string) Config {
	cfg.home, cfg.DataDir, cfg.Server, cfg.Token = cfg.base(), dir, "", ""
	return cfg
}

// base is the agent's data directory.
func (cfg Config) base() string {
	if cfg.home != "" {
		return cfg.home
	}
	return cfg.DataDir
}

// joining is the configuration of the membership that server and token mean: one that
// is there, at this address or under a token of the same fleet, or a new one.
func (cfg Config) joining() (Config, error) {
	all, err := seats(cfg.DataDir)
	if err != nil {
		return cfg, err
	}
	dir, err := cfg.meant(all)
	if err != nil {
		return cfg, err
	}
	one := cfg.at(dir)
	one.Server, one.Token = cfg.Server, cfg.Token
	return one, nil
}

func (cfg Config) meant(all []string) (dir string, err error) {
	if err := cfg.checkServer(); cfg.Server != "" && err != nil {
		return "", err
	}
	if len(all) == 0 && !cfg.begun() {
		return cfg.DataDir, nil
	}
	token, tokenErr := certs.ParseToken(cfg.Token) // enroll says what is wrong with it
	pinned := ""
	for _, dir := range all {
		var e enrolment
		_, err := store{dir}.read(identityFile, &e)
		switch {
		case dir == cfg.own() || err == nil && strings.EqualFold(e.Server, cfg.Server):
			return dir, nil
		case err != nil && dir == cfg.DataDir:
			return "", err // it may be the one
		case err == nil && tokenErr == nil && e.pins(token):
			pinned = dir
		}
	}
	switch {
	case pinned != "":
		return pinned, nil // the server has another address now
	case cfg.Server == "" && len(all) == 1:
		return all[0], nil
	case cfg.Token == "" && len(all) > 0:
		return "", fmt.Errorf("this host has joined %s, and none at %s (%w): to join that one too, or if a server has this address now, run the line that `trustcast token create` prints there", registriesText(all), cfg.Server, ErrNoToken)
	}
	if err := cfg.checkServer(); err != nil {
		return "", err
	}
	if !cfg.begun() && !(store{cfg.DataDir}).has(identityFile) {
		return cfg.DataDir, nil
	}
	return cfg.own(), nil
}

// registriesText names what was joined.
func registriesText(all []string) string {
	var each []string
	for _, dir := range all {
		e, _ := namesAt(dir)
		each = append(each, firstOf(e.Domain, "a registry")+" at "+firstOf(e.Server, filepath.Base(dir)))
	}
	return strings.Join(each, ", ")
}

// own is where a further membership of this server is kept.
func (cfg Config) own() string {
	return filepath.Join(cfg.DataDir, registriesDir, strings.ToLower(cfg.Server))
}

// begun: a join was not through, whose key the server may know.
func (cfg Config) begun() bool { return store{cfg.own()}.has(pendingFile) }

// left: the membership that was in this directory was left meanwhile. There is nothing to
// serve, nor to join.
func (cfg Config) left() bool {
	s := store{cfg.DataDir}
	return cfg.Token == "" && !s.has(identityFile) && !s.has(pendingFile)
}

// ErrAddress says that Config.Server is none.
var ErrAddress = errors.New("the server's address is not HOST:PORT")

// checkServer refuses what is no HOST:PORT, or would be no directory's name.
func (cfg Config) checkServer() error {
	host, text, err := net.SplitHostPort(cfg.Server)
	_, bad := strconv.ParseUint(text, 10, 16)
	if err != nil || bad != nil || host == "" || strings.ContainsAny(cfg.Server, "/\x00") {
		return fmt.Errorf("%w: %q; give it as in registry.example.com:7443", ErrAddress, cfg.Server)
	}
	return nil
}

// gossipFor is where the nth further membership listens: on the nth port after the
// first one's.
func (cfg Config) gossipFor(n int) Config {
	if n == 0 || cfg.GossipListen == off {
		return cfg
	}
	if cfg.GossipTransport != nil {
		cfg.GossipListen, cfg.GossipTransport = off, nil // there is one of it
		return cfg
	}
	host, text, err := net.SplitHostPort(cfg.GossipListen)
	port, bad := strconv.Atoi(text)
	if err == nil && bad == nil && port != 0 {
		cfg.GossipListen = net.JoinHostPort(host, strconv.Itoa(port+n))
	}
	return cfg // one that cannot be read is gossip's to refuse
}

// unclaimed says whether names are no other membership's of this host. Two servers must
// not put their CAs into one directory: each could take over the other's registry.
func (cfg Config) unclaimed(names []certs.Name) error {
	if cfg.home == "" {
		return nil
	}
	all, err := seats(cfg.home)
	if err != nil {
		return err
	}
	for _, dir := range all {
		if dir == cfg.DataDir {
			continue
		}
		e, theirs, err := knownAt(dir)
		if err != nil {
			return fmt.Errorf("the names of the registry %s, which this host has joined as well, are not known (%w), and one of %s may be among them: mend that, or run `trustcast-agent leave %s` first", firstOf(e.Domain, filepath.Base(dir)), err, listed(names), firstOf(e.Domain, filepath.Base(dir)))
		}
		for _, n := range names {
			if slices.Contains(theirs, n) {
				return fmt.Errorf("%s is a name of the registry %s already, which this host has joined at %s: run `trustcast-agent leave %s` first", n, e.Domain, e.Server, e.Domain)
			}
		}
	}
	return nil
}

// namesAt are the names of the membership in dir; of a damaged one, those that are known.
func namesAt(dir string) (e enrolment, names []certs.Name) {
	e, names, _ = knownAt(dir) // the domain counts without the others
	return e, names
}

// knownAt is namesAt, with the error that keeps some of the names unknown.
func knownAt(dir string) (e enrolment, names []certs.Name, err error) {
	var t trusted
	if _, err := (store{dir}).read(identityFile, &e); err != nil {
		return e, nil, err
	}
	if _, err = (store{dir}).read(trustedFile, &t); err == nil {
		if names, err = parseNames(e.Domain, t.Names); err == nil {
			return e, names, nil
		}
	}
	names, _ = parseNames(e.Domain, nil)
	return e, names, err
}

// listed is a list of names for people.
func listed(names []certs.Name) string {
	var all []string
	for _, n := range names {
		all = append(all, n.String())
	}
	return strings.Join(all, ", ")
}

// madeByOthers are the directories that other memberships of this host have made and
// that are above one of files: whoever leaves last removes them.
func (cfg Config) madeByOthers(files []string) (dirs []string) {
	if cfg.home == "" {
		return nil
	}
	all, err := seats(cfg.home)
	if err != nil {
		return nil // one that stays is no harm
	}
	for _, dir := range all {
		var o owned
		if _, err := (store{dir}).read(ownedFile, &o); err != nil || dir == cfg.DataDir {
			continue
		}
		for _, made := range o.Dirs {
			above := func(file string) bool { return strings.HasPrefix(file, made+string(filepath.Separator)) }
			if slices.ContainsFunc(files, above) {
				dirs = append(dirs, made)
			}
		}
	}
	return dirs
}
