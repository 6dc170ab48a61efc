// Package sealed encrypts and decrypts streams with age (age-encryption.org), for
// whoever holds one of the given keys. It makes no keys and asks for no passphrase.
package sealed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
)

const (
	intro = "age-encryption.org/"
	// maxKeyFile bounds a file of recipients or identities (bytes).
	maxKeyFile = 1 << 20
)

// ErrKey says that a recipient or an identity is none.
var ErrKey = errors.New("no key")

// Encrypt returns a writer whose content only the holders of the recipients' keys can
// read. Each is age1…, ssh-ed25519 … or ssh-rsa …, or the path of a file with one a
// line. Close ends the encryption and not w.
func Encrypt(w io.Writer, recipients []string) (io.WriteCloser, error) {
	var all []age.Recipient
	for _, r := range recipients {
		some, err := parseRecipients(r)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	out, err := age.Encrypt(w, all...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}

// Check says whether recipients can be used, before anything is written for them.
func Check(recipients []string) error {
	for _, r := range recipients {
		if _, err := parseRecipients(r); err != nil {
			return err
		}
	}
	return nil
}

func parseRecipients(s string) ([]age.Recipient, error) {
	if isKey(s) {
		r, err := parseRecipient(s)
		return []age.Recipient{r}, err
	}
	data, err := readKeys(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is neither a key (age1…, ssh-ed25519 …, ssh-rsa …) nor a file of keys: %w", ErrKey, s, err)
	}
	var out []age.Recipient
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := parseRecipient(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s has no recipient: give one a line, like age1…", ErrKey, s)
	}
	return out, nil
}

func isKey(s string) bool { return strings.HasPrefix(s, "age1") || strings.HasPrefix(s, "ssh-") }

func parseRecipient(s string) (age.Recipient, error) {
	if strings.HasPrefix(s, "AGE-SECRET-KEY-") {
		return nil, fmt.Errorf("%w: this is a secret key: give the public one, age1…, which `age-keygen -y` prints", ErrKey)
	}
	if !isKey(s) {
		return nil, fmt.Errorf("%w: %q is no recipient: give age1…, ssh-ed25519 … or ssh-rsa …", ErrKey, s)
	}
	if strings.HasPrefix(s, "ssh-") {
		r, err := agessh.ParseRecipient(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		return r, nil
	}
	found, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil {
		return nil, fmt.Errorf("%w: recipient %q: %w", ErrKey, s, err)
	}
	return found[0], nil
}

func readKeys(path string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

// Open returns what r has, decrypted with the first identity that fits if it is
// encrypted, and as it is if it is not. Each identity is a file with age's secret keys,
// or an SSH key without passphrase.
func Open(r io.Reader, identities []string) (plain io.Reader, encrypted bool, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	start, err := in.Peek(len(armor.Header))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("read: %w", err)
	}
	var source io.Reader = in
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return nil, false, errors.New("it is compressed by gzip: unpack it with gunzip first")
	case bytes.HasPrefix(start, []byte(armor.Header)):
		source = armor.NewReader(in)
	case !bytes.HasPrefix(start, []byte(intro)):
		return in, false, nil
	}
	if len(identities) == 0 {
		return nil, true, errors.New("it is encrypted: give the file with a secret key with --identity FILE")
	}
	var all []age.Identity
	for _, path := range identities {
		some, err := parseIdentities(path)
		if err != nil {
			return nil, true, err
		}
		all = append(all, some...)
	}
	plain, err = age.Decrypt(source, all...)
	if e := new(age.NoIdentityMatchError); errors.As(err, &e) {
		return nil, true, errors.New("it is encrypted for other keys than those given with --identity")
	}
	if err != nil {
		return nil, true, fmt.Errorf("decrypt: %w", err)
	}
	return plain, true, nil
}

func parseIdentities(path string) ([]age.Identity, error) {
	data, err := readKeys(path)
	if err != nil {
		return nil, fmt.Errorf("%w: identity: %w", ErrKey, err)
	}
	if bytes.HasPrefix(data, []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(data)
		if err != nil {
			return nil, fmt.Errorf("%w: identity %s: %w", ErrKey, path, err)
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: identity %s: %w: give a file with AGE-SECRET-KEY-1…, as `age-keygen` writes it", ErrKey, path, err)
	}
	return ids, nil
}
