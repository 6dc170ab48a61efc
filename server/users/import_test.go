package users

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/trustcast/trustcast/server/records"
)

func hashed(t *testing.T, password, variant string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(hash), "$2a$", "$2"+variant+"$", 1)
}

// TestImport: bcrypt users stay as they are, and sign in; every other line is told.
func TestImport(t *testing.T) {
	apache, python := hashed(t, "one", "y"), hashed(t, "two", "b")
	file := fmt.Sprintf("# team\n\nci:%s\r\n  bob:%s  \nold:$apr1$abcdefgh$0123456789abcdefghijkl\nsha:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\nplain:secret\nnobody\ncut:%s\ncrypt:rqXexS6ZhobKA\nnone:\nci:%s\n",
		hashed(t, "early", "a"), python, apache[:40], apache)
	in, err := ParseHtpasswd([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"bob", "ci"}, in.Names()); diff != "" {
		t.Error(diff)
	}
	want := []Passed{
		{5, "old", "MD5 (apr1)"}, {6, "sha", "SHA-1"}, {7, "plain", "plain text or an unknown hash"}, {8, "", "no NAME:HASH"},
		{9, "cut", "a damaged bcrypt hash"}, {10, "crypt", "crypt"}, {11, "none", "no hash"},
	}
	if diff := cmp.Diff(want, in.Passed); diff != "" {
		t.Error(diff)
	}
	if text := fmt.Sprint(in.Passed); strings.Contains(text, "secret") || strings.Contains(text, "$apr1$") {
		t.Errorf("a secret is told: %s", text)
	}
	p := newPlace(t)
	if in, err = in.With("new", "a good password"); err != nil {
		t.Fatal(err)
	}
	if err := in.Create(p.store); err != nil {
		t.Fatal(err)
	}
	u := p.open(t)
	for name, password := range map[string]string{"ci": "one", "bob": "two", "new": "a good password"} {
		hash, ok := u.Hash(name)
		if !ok || bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
			t.Errorf("%s does not sign in", name)
		}
	}
	if hash, _ := u.Hash("ci"); string(hash) != apache {
		t.Error("the hash was changed")
	}
	if err := in.Create(p.store); !errors.Is(err, records.ErrConflict) {
		t.Errorf("users were replaced: %v", err)
	}
	if _, err := in.With("ci", "another password"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a user got another password: %v", err)
	}
}

// FuzzParseHtpasswd: whatever is in the file, what becomes of it can be a record.
func FuzzParseHtpasswd(f *testing.F) {
	f.Add([]byte("a:$2y$05$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz012345\nb:c\n:\n#\na"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := ParseHtpasswd(data)
		if err != nil {
			return
		}
		for i, u := range in.users {
			if err := u.check(); err != nil {
				t.Fatal(err)
			}
			if i > 0 && in.users[i-1].Name >= u.Name {
				t.Fatalf("%q after %q", u.Name, in.users[i-1].Name)
			}
		}
	})
}
