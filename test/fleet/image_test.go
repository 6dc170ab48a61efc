//go:build linux

package fleet_test

import (
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	imageLayers = 4
	layerBytes  = 512 << 10
	// blobsPerPull is what a whole pull fetches: the layers and the config.
	blobsPerPull = imageLayers + 1
	// loadedImage is the image's name in the archive.
	loadedImage = "fleet/app:v1"
)

// writeImage makes an archive for `docker load`: nothing comes from outside.
func writeImage(path string) error {
	img, err := random.Image(layerBytes, imageLayers)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(loadedImage)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(path, tag, img)
}
