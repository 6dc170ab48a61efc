package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Home is a user's home directory below which something is ours.
type Home struct {
	Dir string `json:"dir"`
	UID int    `json:"uid"`
	GID int    `json:"gid"`
}

// with does something with the rights that this place has. What do sets counts only when
// there is no error, see As.
func (p Place) with(do func() error) error {
	if p.Home == "" {
		return do()
	}
	return As(p.UID, p.GID, do)
}

// with does something about a path with the rights of whoever's home it is in.
func (o Owned) with(path string, do func() error) error {
	if i := o.home(path); i >= 0 {
		return As(o.Homes[i].UID, o.Homes[i].GID, do)
	}
	return do()
}

func (o Owned) inHome(path string) bool { return o.home(path) >= 0 }

// home is the index of the home that a path is in, -1 for none: of homes in homes the
// inner one, of one home's users the last.
func (o Owned) home(path string) int {
	best := -1
	for i, h := range o.Homes {
		dir := filepath.Clean(h.Dir)
		if strings.HasPrefix(path, dir+"/") && (best < 0 || len(dir) >= len(filepath.Clean(o.Homes[best].Dir))) {
			best = i
		}
	}
	return best
}

// patience is how long a user's home is waited for: what a user can mount or make there
// answers when it likes, and what is on another machine not when that is away. It is
// halved for each that is waited for already, down to leastPatience, so that many users
// cost no more together than two: the agent has more to do, and is watched.
const patience, leastPatience = 5 * time.Second, 100 * time.Millisecond

// late is what has not ended in time, and still goes on.
var late = struct {
	sync.Mutex
	whose map[string]bool
}{whose: map[string]bool{}}

// As does something to files as a user would who has nothing but these two IDs: what
// that user may not touch stays untouched, wherever links lead, and what is made is
// the user's. Nothing needs to change its owner, and no process of the user may send
// this one a signal. It ends within patience; what do sets counts only when there is no
// error, for it may go on.
func As(uid, gid int, do func() error) error {
	if uid == os.Geteuid() {
		return do()
	}
	return inTime(fmt.Sprintf("user %d", uid), func() error {
		runtime.LockOSThread() // and never unlocked: the thread, which has other rights now, ends with the goroutine
		if err := become(uid, gid); err != nil {
			return err
		}
		return do()
	})
}

// inTime does something to somebody's files, in a goroutine of its own, and waits for it
// as long as there is patience. It is not begun again before it has ended. What do sets
// counts only when there is no ErrLate.
func inTime(whose string, do func() error) error {
	late.Lock()
	known, wait := late.whose[whose], max(patience>>min(len(late.whose), 10), leastPatience)
	late.Unlock()
	if known {
		return fmt.Errorf("%w of %s", ErrLate, whose)
	}
	done := make(chan error, 1)
	ended := false // under the lock
	go func() {
		err := do()
		late.Lock()
		defer late.Unlock()
		ended = true
		delete(late.whose, whose)
		done <- err
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	late.Lock()
	defer late.Unlock()
	if ended {
		return <-done
	}
	late.whose[whose] = true
	return fmt.Errorf("%w of %s", ErrLate, whose)
}

// ErrLate says that a home does not answer.
var ErrLate = errors.New("nothing was heard in time of the files")

var errRights = errors.New("the rights")

// become gives this thread a user's rights to files, and no other.
func become(uid, gid int) error {
	err := unix.Setgroups(nil) // of this thread alone, as all below
	if err == nil {
		err = unix.Setfsgid(gid)
	}
	if err == nil {
		err = unix.Setfsuid(uid)
	}
	// The kernel reports no failure: what it has now says whether it was done.
	nowGID, _ := unix.SetfsgidRetGid(-1)
	nowUID, _ := unix.SetfsuidRetUid(-1)
	if err == nil && (nowUID != uid || nowGID != gid) {
		err = unix.EPERM
	}
	if err == nil {
		err = powerless()
	}
	if err != nil {
		return fmt.Errorf("%w of user %d are needed for this user's files, and only root with CAP_SETUID and CAP_SETGID gets them: give the agent these, or leave the rootless engines out with --runtimes (%w)", errRights, uid, err)
	}
	return nil
}

// powerless takes the capabilities from this thread that another user's ID left it: with
// them links through /proc lead into what other users' processes have open, and quotas
// are none. What only changes IDs may stay: under systemd there is no other, and capset
// is forbidden.
func powerless() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return err
	}
	const harmless = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	if sets[0].Effective&^harmless == 0 && sets[1].Effective == 0 {
		return nil
	}
	sets[0].Effective, sets[1].Effective = 0, 0
	return unix.Capset(&head, &sets[0])
}
