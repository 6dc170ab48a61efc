package sealed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

// keyPair writes a secret key to a file and returns the public one beside it.
func keyPair(t *testing.T) (recipient, identity string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity = filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(identity, []byte("# a comment\n"+id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String(), identity
}

func seal(t *testing.T, text []byte, recipients ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := Encrypt(&out, recipients)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEachRecipientReads(t *testing.T) {
	text := make([]byte, 300<<10)
	_, _ = rand.Read(text)
	a, keyA := keyPair(t)
	b, keyB := keyPair(t)
	_, other := keyPair(t)
	list := filepath.Join(t.TempDir(), "recipients")
	if err := os.WriteFile(list, []byte("# who may read\n\n"+b+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := seal(t, text, a, list)
	if bytes.Contains(data, text[:64]) {
		t.Fatal("the text is in it as it was")
	}
	for _, key := range []string{keyA, keyB} {
		plain, encrypted, err := Open(bytes.NewReader(data), []string{other, key})
		if err != nil || !encrypted {
			t.Fatalf("encrypted %v, %v", encrypted, err)
		}
		if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, text) {
			t.Errorf("read %d bytes (%v), want %d", len(got), err, len(text))
		}
	}
	for want, identities := range map[string][]string{"--identity FILE": nil, "other keys": {other}} {
		if _, _, err := Open(bytes.NewReader(data), identities); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %v: %v", identities, err)
		}
	}
	plain, _, err := Open(bytes.NewReader(data[:len(data)-1]), []string{keyA})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(plain); err == nil {
		t.Error("a truncated stream was read to its end")
	}
}

func TestOpenPassesPlainOn(t *testing.T) {
	for _, text := range []string{"", "x", strings.Repeat("plain", 1000)} {
		plain, encrypted, err := Open(strings.NewReader(text), nil)
		if err != nil || encrypted {
			t.Fatalf("encrypted %v, %v", encrypted, err)
		}
		if got, err := io.ReadAll(plain); err != nil || string(got) != text {
			t.Errorf("read %q (%v)", got, err)
		}
	}
	if _, _, err := Open(strings.NewReader("\x1f\x8b\x08\x00"), nil); err == nil || !strings.Contains(err.Error(), "gunzip") {
		t.Errorf("gzip: %v", err)
	}
}

func TestBadRecipients(t *testing.T) {
	_, key := keyPair(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n# nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for recipient, want := range map[string]string{
		"nobody": "neither a key", "age1wrong": "age1wrong", "ssh-ed25519 AAAA": "", empty: "has no recipient", key: "secret key",
	} {
		if err := Check([]string{recipient}); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", recipient, err)
		}
	}
}

func TestSSHKeys(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(identity, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := Open(bytes.NewReader(seal(t, []byte("text"), string(ssh.MarshalAuthorizedKey(key)))), []string{identity})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || string(got) != "text" {
		t.Errorf("read %q (%v)", got, err)
	}
}
