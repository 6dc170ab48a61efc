package registry

import (
	"context"
	"fmt"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage driver
)

const storageDriver = "filesystem"

// FilesIn is a Config.Driver for images that are files below a data directory.
func FilesIn(root string) func(context.Context) (driver.StorageDriver, error) {
	return func(ctx context.Context) (driver.StorageDriver, error) {
		d, err := factory.Create(context.WithoutCancel(ctx), storageDriver, configuration.Parameters{"rootdirectory": root})
		if err != nil {
			return nil, fmt.Errorf("open the registry's data in %s: %w", root, err)
		}
		return d, nil
	}
}
