package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/internal/peer"
	"github.com/trustcast/trustcast/internal/sealed"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// A backup has private keys.
const backupMode = 0o600

// backupFlags are the flags of `trustcast backup`.
type backupFlags struct {
	withoutImages bool
	encryptTo     []string
}

func (a *app) backup() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Write everything into one tar: images, users, certificates, keys, hosts",
		Long: "Write everything that makes this registry into one tar, while it serves: images, users, certificates, private keys, hosts. Without a running server the directory itself is read.\n\n" +
			"Private keys are inside: whoever has the file can be this registry. It is written with mode 0600, never to a terminal; keep it like a key, or encrypt it with --encrypt-to. The secret key for that must not be on this machine alone.\n\n" +
			"Images whose data is damaged are left out and named; everything else is written all the same, and the exit code is 1. Pushes may go on meanwhile; an image is in the backup whole, or not at all.",
		Example: "  trustcast backup registry.tar\n  trustcast backup --encrypt-to age1… registry.tar.age   # only who has the secret key can read it\n  trustcast backup - | ssh store 'cat >registry.tar'\n  trustcast backup --without-images keys.tar             # when images are saved elsewhere",
		Args:    names("a FILE, or - for standard output"),
	}
	var f backupFlags
	c.Flags().BoolVar(&f.withoutImages, "without-images", false, "leave images out: records, users, certificates and keys alone")
	c.Flags().StringArrayVar(&f.encryptTo, "encrypt-to", nil, "encrypt for a `RECIPIENT`: age1…, an SSH public key, or a file of them; may be repeated")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := sealed.Check(f.encryptTo); err != nil {
			return cli.Errorf(cli.Usage, "--encrypt-to: %w", err)
		}
		return a.backUp(c.Context(), f, args[0])
	}
	return c
}

// backUp writes to a file, of which nobody sees a half, or to stdout.
func (a *app) backUp(ctx context.Context, f backupFlags, target string) error {
	began := time.Now()
	if target == "-" {
		if _, is := terminal(a.stdout); is {
			return cli.Errorf(cli.Usage, "a backup has private keys and is not written to a terminal: give a FILE, or pipe it")
		}
		out := &counter{w: a.stdout}
		err := a.writeBackup(ctx, f, out)
		if err == nil || damaged(err) {
			a.say("Backup: %s.", transferred(out.n, time.Since(began)))
		}
		return err
	}
	if err := replaceable(target, "registry.tar"); err != nil {
		return err
	}
	if err := durable.Strays(filepath.Dir(target), filepath.Base(target)); err != nil {
		return err
	}
	file, err := durable.Create(target, backupMode)
	if errors.Is(err, syscall.EROFS) {
		return cli.Errorf(cli.Failed, "%s cannot be written: %w; from within a container, 'backup -' writes to a pipe that leads out of it", target, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Discard() }() // nothing is left to discard after Commit
	out := &counter{w: file}
	made := a.writeBackup(ctx, f, out)
	if made != nil && !damaged(made) {
		if errors.Is(made, context.Canceled) {
			return cli.Errorf(cli.Failed, "interrupted; %s was not written", target)
		}
		return made
	}
	if err := file.Commit(); err != nil {
		return err
	}
	a.say("Wrote %s: %s.", target, transferred(out.n, time.Since(began)))
	if len(f.encryptTo) == 0 {
		a.say("Private keys are inside: keep it like one; --encrypt-to RECIPIENT encrypts it.")
	}
	return made
}

// writeBackup writes a backup, encrypted if it shall be. A damaged one is whole.
func (a *app) writeBackup(ctx context.Context, f backupFlags, out io.Writer) error {
	if len(f.encryptTo) == 0 {
		return a.fetchBackup(ctx, f, out)
	}
	enc, err := sealed.Encrypt(out, f.encryptTo)
	if err != nil {
		return err
	}
	made := a.fetchBackup(ctx, f, enc)
	if made != nil && !damaged(made) {
		return made
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	return made
}

// fetchBackup has the server make a backup, or makes it from the directory where none
// runs. One that drains or starts has the directory and cannot be asked: it is waited for.
func (a *app) fetchBackup(ctx context.Context, f backupFlags, out io.Writer) error {
	bar := a.bar("backup")
	defer bar.end()
	client, closeConn, err := a.dial(ctx)
	if err != nil {
		if other, _ := errors.AsType[*peer.OtherError](err); other != nil || !server.Initialized(a.dataDir) || ctx.Err() != nil {
			return err
		}
		fromDirectory := func() error {
			return server.BackUp(ctx, server.BackupConfig{DataDir: a.dataDir, WithoutImages: f.withoutImages, Version: version, Progress: bar.show}, out)
		}
		if err := fromDirectory(); !errors.Is(err, server.ErrInUse) {
			return err
		}
		client, closeConn, err = a.dialLater(ctx)
		switch {
		case err == nil:
		case ctx.Err() != nil || !wentAway(err):
			return ended(ctx, err)
		default:
			return fromDirectory() // it ended for good, or goes on having it
		}
	}
	defer closeConn()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the server stops when this side cannot write
	stream, err := client.Backup(ctx, &pb.BackupRequest{WithoutImages: f.withoutImages})
	if err != nil {
		return said(err)
	}
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return said(err)
		}
		if _, err := out.Write(part.GetChunk()); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		bar.show(int64(part.GetWritten()), int64(part.GetTotal())) //nolint:gosec // far below the limit
	}
}

// dialLater reaches a server that cannot be asked yet. Its directory is left alone
// meanwhile: the one that starts would find it in use.
func (a *app) dialLater(ctx context.Context) (client pb.AdminServiceClient, closeConn func(), err error) {
	away := absence{remark: "The data directory is in use, and no server answers there; waiting for it to answer."}
	for {
		client, closeConn, err = a.dial(ctx)
		if err == nil || !wentAway(err) {
			return client, closeConn, err
		}
		if err := a.sitOut(ctx, &away, err); err != nil {
			return nil, nil, err
		}
	}
}

// damaged: the backup is whole, and names images that are not in it.
func damaged(err error) bool {
	return errors.Is(err, server.ErrDamaged) || err != nil && cli.StatusOf(err).Code() == codes.DataLoss
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// replaceable says why a file cannot be written under a name.
func replaceable(target, example string) error {
	fi, err := os.Lstat(target)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(target)); err != nil {
			return cli.Errorf(cli.Failed, "%s cannot be written: its directory is not there (%w); make it first", target, err)
		}
	case err != nil:
		return cli.Errorf(cli.Failed, "%s cannot be written: %w", target, err)
	case fi.IsDir():
		return cli.Errorf(cli.Usage, "%s is a directory; give a file's name in it, like %s", target, filepath.Join(target, example))
	case !fi.Mode().IsRegular():
		return cli.Errorf(cli.Usage, "%s is no regular file and stays as it is; give a file's name, or - for standard output", target)
	}
	return nil
}
