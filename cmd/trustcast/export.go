package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/durable"
)

// export writes data to a file, durably, or to stdout for "-". Only a regular
// file is replaced: a rename over anything else would destroy it.
func (a *app) export(target string, data []byte, perm fs.FileMode) error {
	if target == "-" {
		_, err := a.stdout.Write(data)
		return err
	}
	fi, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(target)); err != nil {
			return cli.Errorf(cli.Failed, "%s cannot be written: its directory is not there (%w); make it first", target, err)
		}
	case err != nil:
		return cli.Errorf(cli.Failed, "%s cannot be written: %w", target, err)
	case fi.IsDir():
		return cli.Errorf(cli.Usage, "%s is a directory; give a file's name in it, like %s", target, filepath.Join(target, "ca.crt"))
	case !fi.Mode().IsRegular():
		return cli.Errorf(cli.Usage, "%s is no regular file and stays as it is; give a file's name, or - for standard output", target)
	}
	if err := durable.WriteFile(target, data, perm); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	a.say("Wrote %s.", target)
	return nil
}
