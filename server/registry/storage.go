package registry

import (
	"context"
	"fmt"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"

	"github.com/trustcast/trustcast/server/registry/parameters"
)

// Driver is a Config.Driver for images that are where the parameters say: below root,
// the data directory, unless the operator chose another storage. It is nil for a
// storage that this program cannot open, or that lies in a replica's memory.
func Driver(p *parameters.Set, root string) func(context.Context) (driver.StorageDriver, error) {
	switch p.StorageDriver() {
	case "filesystem":
		return func(context.Context) (driver.StorageDriver, error) { return rooted{root}, nil }
	case "s3", "s3aws":
	default:
		return nil
	}
	return func(ctx context.Context) (driver.StorageDriver, error) {
		c, err := p.Configuration(root, "")
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
