package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	"github.com/trustcast/trustcast/internal/sealed"
	"github.com/trustcast/trustcast/server"
)

// restoreFlags are the flags of `trustcast restore`.
type restoreFlags struct {
	force      bool
	engine     choice
	volume     string
	identities []string
	out        *choice
}

func (a *app) restore() *cobra.Command {
	c := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Put a backup into an empty data directory, or with --force in the place of another",
		Long: "Put a backup into a data directory. It is unpacked beside what is there and checked in full first: until then, and on any error, nothing is changed, and it may be interrupted at any moment. No server may run on the directory.\n\n" +
			"With --force it replaces what is there, images that were pushed after the backup included; a backup made --without-images leaves the images that are there. Both old and new data need room until it is done.\n\n" +
			"On a new machine with the docker engine, --engine docker --volume NAME makes the volume, and --data-dir a link to it; after an error an empty volume may be left, which the next try fills.\n\n" +
			"Afterwards the server leads its fleet again: its generation is above whatever hosts have, join tokens are revoked, the gossip key is another one, and the registry serves nobody until every present host has the restored CA ('trustcast ca serve-now' does not wait). Hosts that joined after the backup are known again when they connect; check the lists of hosts and users, since who was removed after the backup is back.",
		Example: "  trustcast restore registry.tar\n  trustcast restore --identity key.txt registry.tar.age\n  trustcast restore --engine docker --volume registry registry.tar\n  ssh store cat registry.tar | trustcast restore -",
		Args:    names("a FILE, or - for standard input"),
	}
	var f restoreFlags
	c.Flags().BoolVar(&f.force, "force", false, "replace what is in the data directory")
	f.engine = choice{allowed: []string{"embedded", "docker"}}
	c.Flags().Var(&f.engine, "engine", "what runs the restored registry (default that of the registry in its place, else embedded)")
	c.Flags().StringVar(&f.volume, "volume", "", "Docker's `VOLUME` that takes all data, made if it is missing; with --engine docker")
	c.Flags().StringArrayVar(&f.identities, "identity", nil, "a `FILE` with the secret key of an encrypted backup (age's, or an SSH key); may be repeated")
	f.out = output(c.Flags(), restoredJSON{})
	config.FromCommandLine(c.Flags(), "force")
	c.RunE = func(c *cobra.Command, args []string) error { return a.restoreFrom(c.Context(), f, args[0]) }
	return c
}

func (a *app) restoreFrom(ctx context.Context, f restoreFlags, source string) error {
	bar := a.bar("restore")
	defer bar.end()
	in, closeFile, err := a.openBackup(ctx, source, bar)
	if err != nil {
		return err
	}
	defer closeFile()
	plain, encrypted, err := sealed.Open(in, f.identities)
	interrupted := func() error {
		return cli.Errorf(cli.Failed, "interrupted; nothing was changed in %s", a.dataDir)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return interrupted()
	case errors.Is(err, sealed.ErrKey):
		return cli.Errorf(cli.Usage, "--identity: %w", err)
	case err != nil:
		return cli.Errorf(cli.Failed, "%s cannot be read as a backup: %w", source, err)
	case !encrypted && len(f.identities) > 0:
		a.say("The backup is not encrypted; --identity is not needed.")
	}
	r, err := server.Restore(ctx, server.RestoreConfig{DataDir: a.dataDir, Force: f.force, EngineName: f.engine.value, Volume: f.volume}, plain)
	bar.end()
	switch {
	case err != nil && ctx.Err() != nil:
		return interrupted()
	case err != nil:
		return fmt.Errorf("restore from %s: %w", source, err)
	case f.out.json():
		return cli.JSON(a.stdout, newRestoredJSON(r))
	}
	return a.printRestored(r)
}

// openBackup opens a file or stdin.
func (a *app) openBackup(ctx context.Context, source string, bar *bar) (in io.Reader, closeFile func(), err error) {
	if source == "-" {
		if _, is := terminal(a.stdin); is {
			return nil, nil, cli.Errorf(cli.Usage, "a backup is not typed: give a FILE, or pipe one in")
		}
		if f, is := a.stdin.(*os.File); is {
			return patient{ctx, f}, func() {}, nil
		}
		return a.stdin, func() {}, nil
	}
	f, err := os.Open(filepath.Clean(source))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, cli.Errorf(cli.NotFound, "the backup %s is not there; 'trustcast backup FILE' makes one", source)
	}
	if err != nil {
		return nil, nil, cli.Errorf(cli.Failed, "the backup cannot be read: %w", err)
	}
	var total int64
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		total = info.Size()
	}
	return &watched{r: patient{ctx, f}, total: total, bar: bar}, func() { _ = f.Close() }, nil // read only
}

// patient waits for data from a pipe no longer than its context lasts.
type patient struct {
	ctx context.Context
	f   *os.File
}

// poll is how long an interrupt may take to be noticed.
const poll = 100 * time.Millisecond

func (p patient) Read(buf []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}} //nolint:gosec // a small number
	for {
		if err := p.ctx.Err(); err != nil {
			return 0, err
		}
		if n, err := unix.Poll(fds, int(poll.Milliseconds())); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return p.f.Read(buf)
		}
	}
}

// watched shows how much was read.
type watched struct {
	r           io.Reader
	done, total int64
	bar         *bar
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.done += int64(n)
	w.bar.show(w.done, w.total)
	return n, err
}

type restoredJSON struct {
	// Domain is HOST:PORT as in image names.
	Domain string `json:"domain"`
	// FleetID is the fleet that it leads.
	FleetID string `json:"fleet_id"`
	// Made is when the backup was made.
	Made *time.Time `json:"made"`
	// Generation is above whatever hosts have.
	Generation uint64 `json:"generation"`
	// Images counts them.
	Images int `json:"images"`
	// Bytes is their size.
	Bytes int64 `json:"bytes"`
	// WithoutImages says that the backup has none.
	WithoutImages bool `json:"without_images"`
	// KeptImages says that those that were there stay.
	KeptImages bool `json:"kept_images"`
	// Hosts are known.
	Hosts []string `json:"hosts"`
	// Users can sign in.
	Users []string `json:"users"`
	// State is running, paused or stopped.
	State string `json:"state"`
	// RevokedTokens counts join tokens that count no more.
	RevokedTokens int `json:"revoked_tokens"`
	// Damaged are images that the backup does not have, since they were damaged.
	Damaged []string `json:"damaged"`
}

func newRestoredJSON(r server.Restoration) restoredJSON {
	return restoredJSON{
		r.Domain, r.FleetID, cli.Instant(r.Made), r.Generation, r.Images, r.Bytes, r.WithoutImages, r.KeptImages,
		list(r.Hosts), list(r.Users), r.State, r.RevokedTokens, list(r.Damaged),
	}
}

// printRestored shows what is there again, and what to do next.
func (a *app) printRestored(r server.Restoration) error {
	images := fmt.Sprintf("%s, %s in all", count(r.Images, "image"), size(r.Bytes))
	switch {
	case r.KeptImages:
		images = "those that were there stay; the backup has none"
	case r.WithoutImages:
		images = "none; the backup has none"
	}
	err := table(a.stdout, row("domain", r.Domain), row("fleet", r.FleetID), row("backup of", cli.Day(r.Made)), row("images", images),
		row("generation", fmt.Sprintf("%d, above whatever hosts have", r.Generation)),
		row("hosts", strings.Join(r.Hosts, ", ")), row("users", strings.Join(r.Users, ", ")),
		row("tokens", fmt.Sprintf("%d revoked", r.RevokedTokens)), row("gossip key", "another one"))
	if err != nil {
		return err
	}
	switch r.State {
	case "paused":
		a.say("The registry is paused, as it was when the backup was made: requests wait until '%s'.", a.hint("registry unpause"))
	case "stopped":
		a.say("The registry is stopped, as it was when the backup was made; '%s' starts it.", a.hint("registry start"))
	}
	for _, d := range r.Damaged {
		a.say("Not in the backup, because it was damaged: %s", d)
	}
	a.say("Check the hosts and users: who was removed after the backup is back (remove with '%s', '%s'); hosts that joined after it are known again when they connect, new users are not.", a.hint("host rm NAME"), a.hint("user rm NAME"))
	a.say("The registry serves nobody until every present host has the restored CA.")
	a.say("Next: %s, then %s; '%s' does not wait for hosts.", a.startHint(), a.hint("status --wait"), a.hint("ca serve-now"))
	return nil
}
