package install

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/trustcast/trustcast/internal/foreign"
)

// mostUsers is for how many users with a rootless engine one host is kept in step.
const mostUsers = 100

// user is one who may run a rootless engine.
type user struct {
	name, home string
	uid, gid   int
}

// place of a user's engine. It is where dockerd looks unless XDG_CONFIG_HOME is set
// in its environment.
func (u user) place(aside bool) Place {
	return Place{
		Runtime: RuntimeRootless + ":" + u.name, Dir: filepath.Join(u.home, ".config/docker/certs.d"),
		Home: u.home, UID: u.uid, GID: u.gid, Aside: aside,
	}
}

// rootless finds the places of listed users, and of those found to have an engine if
// that is wanted. It waits no longer for homes than there is patience.
func (s System) rootless(runtimes []string) (places []Place, err error) {
	auto := slices.Contains(runtimes, Auto)
	find := auto || slices.Contains(runtimes, RuntimeRootless)
	if !find && !slices.ContainsFunc(runtimes, func(r string) bool { return strings.HasPrefix(r, RuntimeRootless+":") }) {
		return nil, nil
	}
	var found []Place
	err = inTime("all users", func() (err error) {
		found, err = s.engines(runtimes, find, auto)
		return err
	})
	if errors.Is(err, ErrLate) { // and found is not ours
		return nil, fmt.Errorf("look for rootless engines: %w: mend the mount of a home that hangs, or leave these engines out with --runtimes", err)
	}
	return found, err
}

// engines are the places of listed users, and if find is set of those who have one.
func (s System) engines(runtimes []string, find, aside bool) (places []Place, err error) {
	users := s.users()
	for _, r := range runtimes {
		name, ok := strings.CutPrefix(r, RuntimeRootless+":")
		if !ok {
			continue
		}
		i := slices.IndexFunc(users, func(u user) bool { return u.name == name })
		if i < 0 {
			err = fmt.Errorf("%s: there is no user %q with a home on this host", r, name)
			continue
		}
		places = append(places, users[i].place(false))
	}
	for _, u := range users {
		listed := slices.ContainsFunc(places, func(p Place) bool { return p.Home == u.home })
		if find && !listed && len(places) < mostUsers && u.hasEngine() && mayActAs(u.uid) {
			places = append(places, u.place(aside))
		}
	}
	return places, err
}

// hasEngine says whether the user has run a rootless engine, or prepared one.
func (u user) hasEngine() bool {
	return there(filepath.Join(u.home, ".local/share/docker")) || there(filepath.Join(u.home, ".config/docker"))
}

// mayActAs: only root becomes others.
func mayActAs(uid int) bool { return os.Geteuid() == 0 || os.Geteuid() == uid }

// users are those of passwd, and the owners of directories in home who come from
// somewhere else; root is none, and nobody has another's home.
func (s System) users() (users []user) {
	users = s.passwd()
	entries, _ := os.ReadDir(s.path("home"))
	for _, e := range entries {
		home := s.path("home", e.Name())
		info, err := os.Lstat(home)
		if err != nil || !info.IsDir() {
			continue
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		known := slices.ContainsFunc(users, func(u user) bool { return u.home == home || u.name == e.Name() })
		if ok && !known && owner.Uid != 0 && sensible(e.Name()) {
			users = append(users, user{e.Name(), home, int(owner.Uid), int(owner.Gid)})
		}
	}
	slices.SortFunc(users, func(a, b user) int { return cmp.Compare(a.name, b.name) })
	return users
}

// passwd reads the users of /etc/passwd who have a home that is theirs.
func (s System) passwd() (users []user) {
	f, err := os.Open(s.path("etc/passwd"))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // read-only
	for lines := bufio.NewScanner(io.LimitReader(f, foreign.Largest)); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":") // name:x:uid:gid:comment:home:shell
		if len(fields) < 6 || !filepath.IsAbs(fields[5]) {
			continue
		}
		uid, err1 := strconv.Atoi(fields[2])
		gid, err2 := strconv.Atoi(fields[3])
		u := user{fields[0], s.path(fields[5]), uid, gid}
		if err1 == nil && err2 == nil && uid > 0 && gid >= 0 && sensible(u.name) && owns(u) {
			users = append(users, u)
		}
	}
	return users
}

// sensible keeps names that could say something else in a log or a list out.
func sensible(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-@$", r)
	})
}

// owns says whether the home is the user's: service users have such as "/".
func owns(u user) bool {
	info, err := os.Stat(u.home)
	if err != nil || !info.IsDir() {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == u.uid
}
