package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// writeHosts writes the records of hosts that joined and are covered, up to so many.
func (k *kept) writeHosts(upTo int) error {
	now := time.Now().UTC().Truncate(time.Second)
	for ; k.hosts < upTo; k.hosts++ {
		id := digest("host", k.hosts)[:32]
		err := k.writeRecord("hosts", id, map[string]any{
			"id": id, "name": fmt.Sprintf("host-%d", k.hosts), "current": digest("key", k.hosts), "removed": false,
			"enrolled": now, "made": now, "ends": now.Add(90 * 24 * time.Hour),
		})
		if err != nil {
			return err
		}
		err = k.writeRecord("fleet", id, map[string]any{"covered": true, "last_seen": now, "generation": 1, "address": "192.0.2.1"})
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *kept) writeRecord(dir, name string, value any) error {
	raw, err := json.Marshal(map[string]any{"format": 1, "rev": 1, "value": value})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(k.data, "state", "records", dir, name+".json"), raw)
}

// writeTags has the image that was pushed called by so many tags.
func (k *kept) writeTags(upTo int) error {
	tags := filepath.Join(k.data, "docker/registry/v2/repositories/bench/image/_manifests/tags")
	for ; k.tags < upTo; k.tags++ {
		if err := writeFile(filepath.Join(tags, tagName(k.tags), "current", "link"), []byte(k.manifest)); err != nil {
			return err
		}
	}
	return nil
}

// tagName sorts as its number.
func tagName(n int) string { return fmt.Sprintf("tag-%06d", n) }

func digest(what string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, n))
	return hex.EncodeToString(sum[:])
}

func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
