package main

import (
	"fmt"
	"io/fs"

	"github.com/trustcast/trustcast/internal/durable"
)

// export writes data to a file, durably, or to stdout for "-". Only a regular
// file is replaced: a rename over anything else would destroy it.
func (a *app) export(target string, data []byte, perm fs.FileMode) error {
	if target == "-" {
		_, err := a.stdout.Write(data)
		return err
	}
	if err := replaceable(target, "ca.crt"); err != nil {
		return err
	}
	if err := durable.WriteFile(target, data, perm); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	a.say("Wrote %s.", target)
	return nil
}
