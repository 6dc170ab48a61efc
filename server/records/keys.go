package records

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/trustcast/trustcast/internal/durable"
)

// KeyID names a private key: the SHA-256 of its public key (SPKI, DER) in hex.
type KeyID string

// Keys is the directory of private keys, one file a key, named by the key's
// hash, readable by the server alone. A key is written before the record that
// names it and destroyed after the record that forgets it; what a crash leaves
// between the two, Sweep removes at the next start.
type Keys struct{ dir string }

// OpenKeys returns the keys under dir, making the directory (0700) if needed.
func OpenKeys(dir string) (*Keys, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	return &Keys{dir: dir}, nil
}

// New makes an ECDSA P-256 key and writes it.
func (k *Keys) New() (KeyID, *ecdsa.PrivateKey, error) {
	made, err := k.NewSome(1)
	if err != nil {
		return "", nil, err
	}
	return made[0].ID, made[0].Key, nil
}

// Made is a key that is written.
type Made struct {
	ID  KeyID
	Key *ecdsa.PrivateKey
}

// NewSome makes n keys and writes them together.
func (k *Keys) NewSome(n int) ([]Made, error) {
	made, files := make([]Made, n), make([]durable.File, n)
	for i := range made {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		id, file, err := k.file(key)
		if err != nil {
			return nil, err
		}
		made[i], files[i] = Made{id, key}, file
	}
	if err := durable.WriteFiles(files, 0o600); err != nil {
		return nil, fmt.Errorf("keep keys: %w", err)
	}
	return made, nil
}

// Import writes a private key that was made elsewhere: RSA, ECDSA or Ed25519.
func (k *Keys) Import(key crypto.Signer) (KeyID, error) {
	id, file, err := k.file(key)
	if err != nil {
		return "", err
	}
	if err := durable.WriteFile(file.Path, file.Data, 0o600); err != nil {
		return "", fmt.Errorf("keep key: %w", err)
	}
	return id, nil
}

// file is what a key looks like on disk.
func (k *Keys) file(key crypto.Signer) (KeyID, durable.File, error) {
	id, err := IDOf(key)
	if err != nil {
		return "", durable.File{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", durable.File{}, fmt.Errorf("encode key %s: %w", id, err)
	}
	return id, durable.File{Path: k.path(id), Data: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}, nil
}

// Load reads the key called id, one that New made, and checks that it is that key.
func (k *Keys) Load(id KeyID) (*ecdsa.PrivateKey, error) {
	signer, err := k.Signer(id)
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key %s is of type %T; only ECDSA is used here", id, signer)
	}
	return key, nil
}

// Signer reads the key called id, of any kind, and checks that it is that key.
func (k *Keys) Signer(id KeyID) (crypto.Signer, error) {
	key, _, err := k.read(id)
	return key, err
}

// File returns what the file of the key called id holds, once it is checked that it is
// that key.
func (k *Keys) File(id KeyID) ([]byte, error) {
	_, data, err := k.read(id)
	return data, err
}

func (k *Keys) read(id KeyID) (key crypto.Signer, data []byte, err error) {
	data, err = os.ReadFile(k.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("private key %s is missing from %s: restore the state directory from a backup", id, k.dir)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read private key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, fmt.Errorf("private key %s is damaged: restore the state directory from a backup", id)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("private key %s is damaged: restore the state directory from a backup", id)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("private key %s is of type %T and cannot sign", id, parsed)
	}
	if got, err := IDOf(key); err != nil || got != id {
		return nil, nil, fmt.Errorf("private key file %s holds another key: restore the state directory from a backup", id)
	}
	return key, data, nil
}

// Destroy overwrites and removes the key called id. A missing one is no error.
func (k *Keys) Destroy(id KeyID) error {
	if info, err := os.Stat(k.path(id)); err == nil {
		// Best effort: on a copy-on-write file system the old blocks stay.
		if f, err := os.OpenFile(k.path(id), os.O_WRONLY, 0); err == nil {
			_, _ = f.Write(make([]byte, info.Size()))
			_ = f.Sync()
			_ = f.Close()
		}
	}
	if err := durable.Remove(k.path(id)); err != nil {
		return fmt.Errorf("destroy key %s: %w", id, err)
	}
	return nil
}

// List returns the IDs of the keys that are there.
func (k *Keys) List() ([]KeyID, error) {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var ids []KeyID
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".key"); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, KeyID(id))
		}
	}
	return ids, nil
}

// Sweep destroys every key that is not in named, and what killed writes left.
func (k *Keys) Sweep(named map[KeyID]bool) error {
	ids, err := k.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !named[id] {
			if err := k.Destroy(id); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return fmt.Errorf("sweep keys: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			if err := os.Remove(filepath.Join(k.dir, e.Name())); err != nil {
				return fmt.Errorf("sweep keys: %w", err)
			}
		}
	}
	return nil
}

// IDOf returns the name of a key.
func IDOf(key crypto.Signer) (KeyID, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("name key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return KeyID(hex.EncodeToString(sum[:])), nil
}

func (k *Keys) path(id KeyID) string { return filepath.Join(k.dir, string(id)+".key") }
