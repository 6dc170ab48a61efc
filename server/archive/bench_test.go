package archive

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
)

// large is a registry with so many bytes in blobs of 16 MiB.
func large(b *testing.B, total int) tree {
	tr := tree{b, b.TempDir()}
	var layers []digest
	for range total >> 24 {
		data := make([]byte, 1<<24)
		_, _ = rand.Read(data)
		layers = append(layers, tr.layer("app", string(data)))
	}
	tr.tag("app", "v1", tr.revision("app", imageOf(tr.layer("app", "{}"), layers...)))
	return tr
}

const benchBytes = 512 << 20

// BenchmarkWrite: to nowhere, beside tar, which hashes nothing.
func BenchmarkWrite(b *testing.B) {
	tr := large(b, benchBytes)
	b.Run("backup", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for b.Loop() {
			if _, err := tr.backup().Write(b.Context(), io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tar", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for b.Loop() {
			// Through a pipe, since tar reads no file that goes to /dev/null.
			cmd := exec.Command("sh", "-c", `tar -C "$0" -cf - . | cat >/dev/null`, tr.dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}

// BenchmarkUnpack checks and writes everything, and waits for the disk, as tar with
// a sync behind it does.
func BenchmarkUnpack(b *testing.B) {
	data, _ := large(b, benchBytes/4).tar()
	file := b.TempDir() + "/b.tar"
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			dir := b.TempDir()
			_, _, err := Unpack(b.Context(), bytes.NewReader(data), dir)
			if err := errors.Join(err, syncAll(dir)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tar", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			dir := b.TempDir()
			if out, err := exec.Command("sh", "-c", `tar -C "$0" -xf "$1" && sync -f "$0"`, dir, file).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}
