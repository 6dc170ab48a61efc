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

// Driver is a Config.Driver for images that are where the parameters say: below root,
// the data directory, unless the operator chose another storage. It is nil for a
// storage that this program cannot open, or that lies in a replica's memory.
func (s *Settings) Driver(root string) func(context.Context) (driver.StorageDriver, error) {
	switch s.StorageDriver() {
	case storageDriver:
		return func(context.Context) (driver.StorageDriver, error) { return rooted{root}, nil }
	case "s3", "s3aws":
	default:
		return nil
	}
	return func(ctx context.Context) (driver.StorageDriver, error) {
		c, err := s.Configuration(root, "")
		if err != nil {
			return nil, err
		}
		return openStorage(ctx, c, root)
	}
}

// openStorage opens what holds the images, for longer than ctx.
func openStorage(ctx context.Context, c *configuration.Configuration, root string) (driver.StorageDriver, error) {
	d, err := factory.Create(context.WithoutCancel(ctx), c.Storage.Type(), c.Storage.Parameters())
	if err != nil {
		return nil, fmt.Errorf("open the registry's data in %s: %w", root, err)
	}
	return d, nil
}
