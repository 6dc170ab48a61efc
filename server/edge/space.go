package edge

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultMinFree is below how many free bytes the edge takes nothing more: the
	// layers of an image that is being pushed often are as large.
	DefaultMinFree = 1 << 30
	// floorShare of MinFree is the reserve of the server's records: below that a
	// body in flight is cut.
	floorShare = 4

	// lookEvery is how long a look at the disk counts: a fast line writes 100 MB
	// in that time, far from the reserve.
	lookEvery = time.Second
	// lookStep is after how many bytes of a body the disk is looked at again, at most.
	lookStep = 4 << 20
)

var errFull = errors.New("the disk of the registry's data is full")

// FreeIn returns a Config.Free for the file system of dir: what is free there for
// those who are not root (bytes).
func FreeIn(dir string) func() (uint64, error) {
	return func() (uint64, error) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return 0, fmt.Errorf("look how much is free in %s: %w", dir, err)
		}
		return s.Bavail * uint64(s.Bsize), nil
	}
}

// space is how much is free, looked at now and then.
type space struct {
	free    func() (uint64, error) // nil: nobody knows, and nothing is refused
	minimum uint64
	log     *slog.Logger

	mu      sync.Mutex
	every   time.Duration // how long a look counts
	at      time.Time     // of the last look; zero before the first
	looking bool
	known   uint64
	failed  bool // the last look did
	low     bool // the last look was below minimum
}

// now is how much is free; false when it cannot be known. Only one looks at a
// time, and others go on with the last look: a disk may take its time.
func (s *space) now() (free uint64, ok bool) {
	if s.free == nil {
		return 0, false
	}
	s.mu.Lock()
	if s.at.IsZero() || !s.looking && time.Since(s.at) >= s.every {
		s.looking = true
		s.mu.Unlock()
		free, err := s.free()
		s.mu.Lock()
		s.note(free, err)
	}
	defer s.mu.Unlock()
	return s.known, !s.failed
}

// gauge is what the metrics show.
func (s *space) gauge() float64 {
	free, ok := s.now()
	if !ok {
		return math.NaN()
	}
	return float64(free)
}

// note keeps a look, and logs what changed; mu is held.
func (s *space) note(free uint64, err error) {
	s.looking, s.at = false, time.Now()
	if err != nil {
		if !s.failed {
			s.log.Warn("nobody knows how much disk is free: nothing is refused for that", "err", err)
		}
		s.failed = true
		return
	}
	s.failed, s.known = false, free
	if low := free < s.minimum; low != s.low {
		s.low = low
		if low {
			s.log.Warn("the disk is nearly full: pushes are refused, pulls go on", "free", inWords(free), "minimum", inWords(s.minimum))
		} else {
			s.log.Info("the disk has room again: pushes go on", "free", inWords(free))
		}
	}
}

// refuses says why nothing may be added now; nil when it may.
func (s *space) refuses() *refusal {
	if s.minimum == 0 {
		return nil
	}
	free, ok := s.now()
	if !ok || free >= s.minimum {
		return nil
	}
	return s.full(free)
}

func (s *space) full(free uint64) *refusal {
	return &refusal{
		status: http.StatusInsufficientStorage, code: "INSUFFICIENT_STORAGE", reason: "space",
		message: fmt.Sprintf("the registry's disk has %s free and takes no push below %s; pulls go on. Delete images and run `trustcast registry gc`, give the disk more room, or lower --min-free",
			inWords(free), inWords(s.minimum)),
	}
}

// exhausted says that even what is in flight must end. It looks anew: a small disk is
// full within the time that a look counts.
func (s *space) exhausted() (why *refusal) {
	if s.minimum == 0 || s.free == nil {
		return nil
	}
	free, err := s.free()
	s.mu.Lock()
	s.note(free, err)
	s.mu.Unlock()
	if err != nil || free >= s.minimum/floorShare {
		return nil
	}
	return s.full(free)
}

// step is after how many bytes of a body the disk is looked at again: small beside
// the reserve.
func (s *space) step() int {
	return int(min(lookStep, max(s.minimum/floorShare/4, 64<<10)))
}

// adds says whether a request puts data on the disk.
func adds(r *http.Request) bool {
	return r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch
}

// bounded is a body that ends when the disk gets too full for the rest of it.
type bounded struct {
	io.ReadCloser
	space *space
	since int                     // bytes since the last look
	cut   atomic.Pointer[refusal] // why it was; nil: it was not
}

// Read looks at the disk now and then.
func (b *bounded) Read(p []byte) (int, error) {
	if b.cut.Load() != nil {
		return 0, errFull
	}
	n, err := b.ReadCloser.Read(p)
	if b.since += n; b.since >= b.space.step() {
		b.since = 0
		if why := b.space.exhausted(); why != nil {
			b.cut.Store(why)
			return 0, errFull
		}
	}
	return n, err
}

// inWords is a number of bytes as people read it.
func inWords(bytes uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
