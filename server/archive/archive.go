// Package archive writes a data directory as one tar and reads it back.
//
// A backup begins with a header that says what it is, has the small files of the
// server (records, keys, users, certificates), the blobs and then the links that
// make images of them, and ends with a list of everything before it. Its paths
// are those of the data directory, so that plain tar unpacks what a plain registry
// can serve. What is read is checked in full in a directory beside the old data
// before that is touched, see Staging. It knows nothing of what records mean, of
// encryption and of the network.
package archive

import (
	"errors"
	"fmt"
	"time"
)

// Format is the version of the archive. A greater one is refused.
const Format = 1

const (
	headerPath   = "trustcast-backup/header.json"
	manifestPath = "trustcast-backup/manifest.jsonl"

	// maxHeader bounds the header (bytes); ours has about 300.
	maxHeader = 64 << 10
	// maxLine bounds a line of the manifest (bytes); the longest paths have 700.
	maxLine = 1 << 20
	// maxName bounds a path (bytes).
	maxName = 1 << 10
	// maxList bounds what is kept in memory of the files of a backup (bytes), which is
	// listCost of each: some four million. What is written is held to it as well,
	// so that it can be read.
	maxList = 1 << 30
)

// listCost is what is kept of a file, more or less: its path, and what stands beside
// it (bytes).
func listCost(name string) int64 { return int64(len(name)) + 96 }

// ErrRefused says that what was read is no whole and sound backup; the text says
// why, and what to do.
var ErrRefused = errors.New("backup refused")

func refusedf(format string, args ...any) error {
	return fmt.Errorf("%w: %w; nothing was changed", ErrRefused, fmt.Errorf(format, args...))
}

// Header says what a backup is of.
type Header struct {
	Format int `json:"format"`
	// Version of the program that wrote it.
	Version string `json:"trustcast"`
	// Made is from before the first file was read.
	Made       time.Time `json:"made"`
	Domain     string    `json:"domain"`
	FleetID    string    `json:"fleet_id"`
	Generation uint64    `json:"generation"`
	// WithoutImages: blobs were left out on request.
	WithoutImages bool `json:"without_images"`
}

// Report is what a backup holds.
type Report struct {
	// Files and their bytes, without the manifest itself.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Images are the manifests by digest, in all repositories; Blobs are what
	// they and uploaded layers consist of.
	Images int `json:"images"`
	Blobs  int `json:"blobs"`
	// Damaged are images that were left out because their data is damaged, in
	// words.
	Damaged []string `json:"damaged"`
}

// entry is a line of the manifest.
type entry struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Mode in octal.
	Mode string `json:"mode"`
	// Damaged: the content is not what its path says, or could not be read to its
	// end. It is here because that was found out while it was written, and is not
	// unpacked.
	Damaged bool `json:"damaged,omitempty"`
}
