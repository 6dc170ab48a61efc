package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/users"
)

// volumePrefix marks a Docker volume's name where a directory may stand.
const volumePrefix = "volume:"

// keptSuffix marks the copy of a file that was taken over.
const keptSuffix = ".adopted"

// AdoptConfig says which plain registry Init takes over.
type AdoptConfig struct {
	// From is a directory, "volume:NAME" of Docker, or a tar of either. The first two
	// are taken over where they are, and DataDir becomes a link to them unless it is
	// that directory; a tar is unpacked into it. "": none.
	From string
	// NewCA makes a new CA instead of going on with the old pair: hosts fail until
	// they have joined.
	NewCA bool
}

// AdoptResult is what Init took over.
type AdoptResult struct {
	// Dir is where the data are.
	Dir string
	// Certificate is the subject of what is served on, Issuer of the one that hosts
	// trust, Ends when the first of them ends; "" with a new CA.
	Certificate, Issuer string
	Ends                time.Time
	// Without are names that the certificate does not have: they are served with it
	// all the same, and verify from the first rotation on.
	Without []string
	// Repositories of images; Users by name; Passed are lines of htpasswd that make
	// none.
	Repositories int
	Users        []string
	Passed       []users.Passed
	// Running are containers that use the data now; Answers says that something
	// answers on the registry's port of this machine.
	Running []string
	Answers bool
}

// oldFiles are the parts of a plain registry's data that decide whether it can be
// taken over.
type oldFiles struct {
	ca, cert, key, htpasswd []byte
	repositories            int
	// images: there is a blob store.
	images bool
}

// old is a registry that is to be taken over, judged.
type old struct {
	result  AdoptResult
	pair    *pair // nil: a new CA
	users   users.Imported
	archive *oldArchive // nil: the data are in place
}

// adoptVolume makes a volume that is taken over the docker engine's.
func (cfg *InitConfig) adoptVolume() error {
	if cfg.Adopt.From == "" || cfg.EngineName != engineDocker {
		return nil
	}
	name, ok := strings.CutPrefix(cfg.Adopt.From, volumePrefix)
	switch {
	case ok && (cfg.Volume == "" || cfg.Volume == name):
		cfg.Volume = name
	case ok:
		return fmt.Errorf("adopt: the docker engine works on the volume that is taken over: leave --volume out, or give --volume %s", name)
	case isDir(cfg.Adopt.From):
		return fmt.Errorf("adopt: the docker engine needs a volume: make one of the directory with `docker volume create --opt type=none --opt o=bind --opt device=%s NAME`, and give --adopt volume:NAME", cfg.Adopt.From)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// adopt finds and judges what is to be taken over. It changes nothing.
func (cfg InitConfig) adopt(ctx context.Context, names []certs.Name) (*old, error) {
	from := cfg.Adopt.From
	dir, err := cfg.Adopt.directory(ctx)
	if err != nil {
		return nil, err
	}
	var o old
	var files oldFiles
	o.result.Dir = dir
	if dir == "" {
		o.result.Dir = cfg.DataDir
		if o.archive, files, err = readArchive(from); err != nil {
			return nil, err
		}
		if err := o.archive.fits(cfg.DataDir); err != nil {
			return nil, err
		}
	} else {
		if Initialized(dir) {
			return nil, alreadyError(dir)
		}
		if _, err := canLink(cfg.DataDir, dir, from); err != nil {
			return nil, fmt.Errorf("adopt: %w", err)
		}
		if files, err = readDir(dir); err != nil {
			return nil, err
		}
	}
	if !files.images && files.cert == nil && files.htpasswd == nil {
		return nil, fmt.Errorf("%s holds no registry: neither docker/registry/v2 (images) nor certs/domain.crt nor auth/htpasswd is there; give the directory that the old container has at /var/lib/registry, with its certs/ and auth/ in it", from)
	}
	if err := o.judge(cfg, files, names); err != nil {
		return nil, fmt.Errorf("adopt %s: %w", from, err)
	}
	if dir != "" {
		// An error is no Docker, or none that we may ask.
		o.result.Running, _ = registry.Mounted(ctx, "", dir)
	}
	o.result.Answers = answers(ctx, names[0].Port)
	return &o, nil
}

func alreadyError(dir string) error {
	return fmt.Errorf("%s holds a registry already: start it with `trustcast server --data-dir %s`, or give another --data-dir", dir, dir)
}

// place brings the data directory to the data, or makes room for them.
func (cfg InitConfig) place(ctx context.Context, o *old, domain string) error {
	if o != nil && o.archive == nil {
		return linkTo(cfg.DataDir, o.result.Dir, cfg.Adopt.From)
	}
	if err := placeInVolume(ctx, cfg.DataDir, cfg.Volume, domain); err != nil || o == nil {
		return err
	}
	return o.archive.fits(cfg.DataDir) // the volume may have been in use
}

// directory is where the data are; "" when they are in an archive.
func (c AdoptConfig) directory(ctx context.Context) (string, error) {
	if name, ok := strings.CutPrefix(c.From, volumePrefix); ok {
		return registry.FindVolume(ctx, "", name)
	}
	info, err := os.Stat(c.From)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("adopt: %s is not there: give a directory, volume:NAME or a tar file", c.From)
	case err != nil:
		return "", fmt.Errorf("adopt: %w", err)
	case info.IsDir():
		return filepath.Abs(c.From)
	case info.Mode().IsRegular():
		return "", nil
	}
	return "", fmt.Errorf("adopt: %s is neither a directory nor a file; a pipe cannot be read twice: write it to a file first", c.From)
}

// readDir reads what decides, from data in place.
func readDir(dir string) (oldFiles, error) {
	var f oldFiles
	for _, part := range []struct {
		name string
		into *[]byte
	}{{caPart, &f.ca}, {certPart, &f.cert}, {keyPart, &f.key}, {htpasswdPart, &f.htpasswd}} {
		data, err := readBounded(filepath.Join(dir, filepath.FromSlash(part.name)))
		if err != nil {
			return oldFiles{}, fmt.Errorf("adopt: %w", err)
		}
		*part.into = data
	}
	root := filepath.Join(dir, filepath.FromSlash(imagesPart))
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return oldFiles{}, fmt.Errorf("adopt: images: %w", err)
	case !info.IsDir():
		return oldFiles{}, fmt.Errorf("adopt: images: %s is no directory", root)
	}
	if err := registry.CheckImages(dir); err != nil {
		return oldFiles{}, fmt.Errorf("adopt: %w", err)
	}
	f.images = true
	err = filepath.WalkDir(filepath.Join(root, "repositories"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "_manifests":
			f.repositories++
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), "_") {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return oldFiles{}, fmt.Errorf("adopt: images: %w", err)
	}
	return f, nil
}

// maxPart bounds each file that is read whole (bytes).
const maxPart = 4 << 20

// readBounded returns nil for a file that is not there.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxPart:
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxPart)
	}
	return os.ReadFile(path)
}

// answers: something listens on a port of this machine, perhaps the old registry.
func answers(ctx context.Context, port int) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = conn.Close() // it was opened to see whether it opens
	return true
}

// keep keeps copies of the operator's files in whose place the server writes its own:
// an htpasswd of which lines make no user, and with a new CA the old certificates. A
// copy that is there is the older one.
func (o *old) keep(l layout) error {
	var paths []string
	if len(o.result.Passed) > 0 {
		paths = append(paths, l.htpasswd())
	}
	if o.pair == nil {
		paths = append(paths, l.caFile(), l.domainFile())
	}
	for _, path := range paths {
		data, err := readBounded(path)
		if err != nil {
			return fmt.Errorf("adopt: %w", err)
		}
		copied, err := readBounded(path + keptSuffix)
		if err != nil {
			return fmt.Errorf("adopt: %w", err)
		}
		if data == nil || copied != nil {
			continue
		}
		if err := durable.WriteFile(path+keptSuffix, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// create writes the users of the old registry, and the first one if another is
// wanted. It returns a generated password, if any.
func (o *old) create(store *records.Store, cfg InitConfig) (generated string, err error) {
	if cfg.User == "" {
		return "", o.users.Create(store)
	}
	password := cfg.Password
	if password == "" {
		generated = users.Generate()
		password = generated
	}
	all, err := o.users.With(cfg.User, password)
	if err != nil {
		return "", err
	}
	return generated, all.Create(store)
}
