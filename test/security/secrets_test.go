package security

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// secret is something that must stay where it is.
type secret struct {
	name  string
	value []byte
	// nowhere: not even in files that only their owner reads.
	nowhere bool
}

// spellings are all that a program could give it: as it is, as numbers, encoded,
// as a string with escapes, as a message prints it, and these in a log's quotes.
func (s secret) spellings() (all []string) {
	inner := func(quoted string) string { return quoted[1 : len(quoted)-1] }
	_, message, _ := strings.Cut(prototext.Format(wrapperspb.Bytes(s.value)), ":")
	all = []string{
		string(s.value), fmt.Sprintf("%d", s.value), hex.EncodeToString(s.value), fmt.Sprintf("%X", s.value),
		base64.RawStdEncoding.EncodeToString(s.value), base64.RawURLEncoding.EncodeToString(s.value),
		inner(strconv.Quote(string(s.value))), inner(strings.TrimSpace(message)),
	}
	for _, spelling := range all {
		all = append(all, inner(strconv.Quote(spelling)))
	}
	return all
}

// in finds the secret in data.
func (s secret) in(data []byte) bool {
	return slices.ContainsFunc(s.spellings(), func(spelling string) bool { return bytes.Contains(data, []byte(spelling)) })
}

// TestSecretsAreFound: the search below is not blind to how programs print.
func TestSecretsAreFound(t *testing.T) {
	t.Parallel()
	for range 100 {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw) // never fails
		s, j := secret{value: raw}, &journal{}
		for name, print := range map[string]any{
			"bytes": raw, "text": string(raw), "message": &pb.Gossip{Keys: [][]byte{raw}}, "in a message": &pb.EnrollRequest{TokenSecret: raw},
			"struct": struct{ Secret []byte }{raw}, "error": fmt.Errorf("secret %q is wrong", raw), "array": [32]byte(raw),
		} {
			j.text.Reset()
			j.logger("test").Info("leak", "it", print)
			if !s.in(j.text.Bytes()) {
				t.Errorf("not found, printed as %s: %s", name, j)
			}
		}
	}
}

// vault collects secrets as they come into being; keys do not live for long.
type vault struct {
	t    *testing.T
	seen map[string]bool
	all  []secret
}

func (v *vault) add(s secret) {
	if id := string(s.value); !v.seen[id] {
		v.seen[id] = true
		v.all = append(v.all, s)
	}
}

// keys takes the private keys of a PEM directory.
func (v *vault) keys(dir string) {
	v.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(files) == 0 {
		v.t.Fatalf("no keys in %s (%v)", dir, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if block, _ := pem.Decode(data); err == nil && block != nil { // else it is being destroyed
			v.key(filepath.Base(file), block.Bytes)
		}
	}
}

// key takes a key: as encoded, and its number alone.
func (v *vault) key(name string, der []byte) {
	v.t.Helper()
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		v.t.Fatal(err)
	}
	number, err := parsed.(interface{ Bytes() ([]byte, error) }).Bytes()
	if err != nil {
		v.t.Fatal(err)
	}
	v.add(secret{name: "key " + name, value: der})
	v.add(secret{name: "number of key " + name, value: number})
}

// files reads everything under dir with its mode. What is renamed meanwhile, as a file
// that is being written is, may be seen under its new name only, or not at all.
func files(t *testing.T, dir string, see func(path string, info fs.FileInfo, content []byte)) {
	t.Helper()
	read := func(path string, d fs.DirEntry) error {
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		see(path, info, content)
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = read(path, d)
		}
		if path != dir && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSecretsStayWhereTheyAre plays a whole life with the chattiest log, then
// looks for every secret in the logs, in the errors and in every file that
// anybody but its owner may read.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	defer syscall.Umask(syscall.Umask(0)) // modes shall not depend on it
	w := start(t, func(init *server.InitConfig, cfg *server.Config) {
		init.User = "alice" // with a generated password
		cfg.GossipListen, cfg.Advertise = "127.0.0.1:0", "127.0.0.1:7443"
	})
	state := filepath.Join(w.cfg.DataDir, "state")
	v := &vault{t: t, seen: map[string]bool{}}
	v.keys(filepath.Join(state, "keys"))
	v.add(secret{"the generated password", []byte(w.init.Password), true})
	v.add(secret{"the password given", []byte("correct-horse-battery"), true})
	v.add(secret{"a password refused", []byte(strings.Repeat("too-long-password-", 20)), true})

	var said []string // errors and results that people see
	try := func(call func(context.Context, pb.AdminServiceClient) error) {
		if err := w.admin(call); err != nil {
			said = append(said, err.Error())
		}
	}
	for _, password := range []string{"correct-horse-battery", strings.Repeat("too-long-password-", 20)} {
		try(func(ctx context.Context, c pb.AdminServiceClient) error {
			_, err := c.AddUser(ctx, &pb.AddUserRequest{Name: "bob", Password: password})
			return err
		})
	}
	gossiping := func(cfg *agent.Config) { cfg.GossipListen = "127.0.0.1:0" }
	token := w.token(&pb.CreateTokenRequest{Uses: 1})
	web := w.machine("web")
	web.cfg.Token = token
	gossiping(&web.cfg)
	result, err := agent.Join(call(t), web.cfg)
	if err != nil {
		t.Fatal(err)
	}
	said = append(said, fmt.Sprintf("%+v", result))
	web.start()
	db := w.join("db", gossiping)
	late := w.machine("late")
	late.cfg.Token = token // used up
	if _, err := agent.Join(call(t), late.cfg); err != nil {
		said = append(said, err.Error())
	} else {
		t.Error("a token for one host let a second in")
	}
	for _, m := range []*machine{web, db} {
		var identity struct {
			Key    []byte
			Gossip struct{ Keys [][]byte }
		}
		data, err := os.ReadFile(filepath.Join(m.cfg.DataDir, "identity.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &identity); err != nil {
			t.Fatal(err)
		}
		v.key("of "+m.cfg.Name, identity.Key)
		for _, key := range identity.Gossip.Keys {
			v.add(secret{name: "a gossip key", value: key})
		}
		parsed, err := certs.ParseToken(m.cfg.Token)
		if err != nil {
			t.Fatal(err)
		}
		v.add(secret{"the token of " + m.cfg.Name, parsed.Secret, true})
	}
	w.rotate(time.Hour)
	until(t, "the rotation ends", func() bool {
		v.keys(filepath.Join(state, "keys"))
		return w.status().GetRotation().GetPhase() == "idle"
	})
	w.remove("db")
	until(t, "db knows", func() bool { return strings.Contains(db.status().Problem, "removed") })
	said = append(said, db.status().Problem, fmt.Sprintf("%+v", web.status()), w.status().String())

	log := w.log.String()
	for _, expected := range []string{"level=DEBUG", "host enrolled", "phase=idle", "verb=\"user add\"", "removed from the fleet", "enrolment refused"} {
		if !strings.Contains(log, expected) {
			t.Errorf("the log lacks %q: the life was not whole", expected)
		}
	}
	found := map[string]bool{}
	for _, s := range v.all {
		if s.in([]byte(log)) {
			t.Errorf("the log has %s", s.name)
		}
		if s.in([]byte(strings.Join(said, "\n"))) {
			t.Errorf("errors or results have %s", s.name)
		}
		files(t, w.dir, func(path string, info fs.FileInfo, content []byte) {
			if !s.in(content) {
				return
			}
			found[s.name] = true
			if s.nowhere || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s (%s) has %s", path, info.Mode(), s.name)
			}
		})
	}
	// The twin: the search finds what is there.
	if !found["a gossip key"] || !found["key of web"] || len(v.all) < 12 {
		t.Errorf("of %d secrets only %v were found at all: the search is blind", len(v.all), found)
	}
}

// TestModes: the server's state, and all that an agent keeps, is for its owner
// alone; nothing that looks like a private key is anywhere else.
func TestModes(t *testing.T) {
	t.Parallel()
	defer syscall.Umask(syscall.Umask(0))
	w := start(t, func(init *server.InitConfig, _ *server.Config) { init.User = "alice" })
	m := w.join("web")
	w.rotate(time.Hour)
	until(t, "the rotation ends", func() bool { return w.status().GetRotation().GetPhase() == "idle" })
	sockets, keys := 0, 0
	for _, private := range []string{filepath.Join(w.cfg.DataDir, "state"), filepath.Join(w.cfg.DataDir, "auth"), m.cfg.DataDir} {
		files(t, private, func(path string, info fs.FileInfo, content []byte) {
			want := fs.FileMode(0o600)
			switch {
			case info.IsDir():
				want = 0o700
			case info.Mode()&fs.ModeSocket != 0:
				sockets++
			case bytes.Contains(content, []byte("PRIVATE KEY")):
				keys++
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("%s has mode %#o, want %#o", path, got, want)
			}
		})
	}
	if sockets != 1 || keys < 3 {
		t.Errorf("%d sockets and %d keys were seen", sockets, keys)
	}
	for _, public := range []string{filepath.Join(w.cfg.DataDir, "certs"), m.cfg.DockerCertsDir} {
		seen := 0
		files(t, public, func(path string, info fs.FileInfo, content []byte) {
			if info.IsDir() {
				return
			}
			seen++
			if _, err := certs.ParsePEM(content); err != nil {
				t.Errorf("%s holds more than certificates: %v", path, err)
			}
			if got := info.Mode().Perm(); got != 0o644 {
				t.Errorf("%s has mode %#o: others cannot read it, or can write it", path, got)
			}
		})
		if seen == 0 {
			t.Errorf("%s is empty", public)
		}
	}
}
