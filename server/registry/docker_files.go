package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trustcast/trustcast/internal/peer"
)

const (
	// runDir of the volume has sockets and configurations of replicas.
	runDir = "run"
	// maxSocketPath is what the kernel takes.
	maxSocketPath = 107
	// answerWithin is what a replica gets for the empty answer to /v2/.
	answerWithin = 5 * time.Second
	// maxAnswerHeader bounds that answer's header (bytes).
	maxAnswerHeader = 64 << 10
)

func socketName(id string) string { return runDir + "/" + id + ".sock" }
func configName(id string) string { return runDir + "/" + id + ".yml" }

// socket is where this process finds a replica.
func (d *Docker) socket(id string) string { return filepath.Join(d.cfg.Root, socketName(id)) }

func checkSocketPath(path string) error {
	if len(path) <= maxSocketPath {
		return nil
	}
	return fmt.Errorf("the sockets of replicas, such as %s, have %d bytes in their path, and the kernel takes %d: give the volume a shorter name, or the data directory a shorter path", path, len(path), maxSocketPath)
}

// inRoot does something to files of the volume. Replicas own run/ and could lay
// links there that lead out of it: these are not followed.
func (d *Docker) inRoot(do func(root *os.Root) error) error {
	root, err := os.OpenRoot(d.cfg.Root)
	if err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	return errors.Join(do(root), root.Close())
}

// writeConfig writes the configuration of a replica, which has secrets in it and
// needs not survive a crash: replicas do not start again.
func (d *Docker) writeConfig(id string) error {
	text, err := d.cfg.Config(inside + "/" + socketName(id))
	if err != nil {
		return fmt.Errorf("the registry's configuration: %w", err)
	}
	err = d.inRoot(func(root *os.Root) error {
		f, err := root.OpenFile(configName(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		return errors.Join(err, f.Chown(d.cfg.UID, d.gid), f.Close())
	})
	if err != nil {
		return fmt.Errorf("write the configuration of a replica: %w", errors.Join(err, d.removeFiles(id)))
	}
	return nil
}

// removeFiles removes what a replica had in run/.
func (d *Docker) removeFiles(id string) error {
	return d.inRoot(func(root *os.Root) error {
		for _, name := range []string{socketName(id), configName(id)} {
			if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove what a replica left: %w", err)
			}
		}
		return nil
	})
}

// sweep removes the files of replicas other than these.
func (d *Docker) sweep(keep []Endpoint) error {
	kept := map[string]bool{}
	for _, e := range keep {
		kept[e.ID] = true
	}
	var gone []string
	err := d.inRoot(func(root *os.Root) error {
		entries, err := fs.ReadDir(root.FS(), runDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for what replicas left: %w", err)
		}
		for _, e := range entries {
			id, suffix, _ := strings.Cut(e.Name(), ".")
			if replicaID.MatchString(id) && (suffix == "sock" || suffix == "yml") && !kept[id] {
				gone = append(gone, id)
			}
		}
		return nil
	})
	for _, id := range gone {
		err = errors.Join(err, d.removeFiles(id))
	}
	return err
}

// answers asks a replica, and nobody else at its socket, whether it serves the
// registry's API.
func (d *Docker) answers(ctx context.Context, id string) error {
	path := d.socket(id)
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket", path)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswerHeader, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return peer.Dial(ctx, path, d.cfg.UID) // the directory is the replicas' own
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://replica/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %d to GET /v2/", resp.StatusCode)
	}
	return nil
}
