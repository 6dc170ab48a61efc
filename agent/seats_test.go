package agent

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trustcast/trustcast/certs"
)

// TestUnclaimed: a name that another membership has is refused; and so is any new one
// while what another has is not known. The control is the same name with all known.
func TestUnclaimed(t *testing.T) {
	base := t.TempDir()
	other := filepath.Join(base, registriesDir, "b.test:7443")
	write := func(file, text string) {
		t.Helper()
		err := os.MkdirAll(filepath.Dir(file), 0o700)
		if err == nil {
			err = os.WriteFile(file, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	identity, names := filepath.Join(other, identityFile), filepath.Join(other, trustedFile)
	const whole, known = `{"format":1,"domain":"b.test:5000"}`, `{"format":1,"names":["b.test:5000","alias.test:5000"]}`
	cfg := Config{DataDir: base}.at(base)
	for _, c := range []struct {
		what, identity, names, asked, want string
	}{
		{"a free name", whole, known, "free.test:5000", ""},
		{"the domain of another", whole, known, "b.test:5000", "is a name of the registry b.test:5000 already"},
		{"the alias of another", whole, known, "alias.test:5000", "is a name of the registry b.test:5000 already"},
		{"the alias of one that is damaged", whole, "{", "alias.test:5000", "are not known"},
		{"any name beside one that is damaged", whole, "{", "free.test:5000", "`trustcast-agent leave b.test:5000`"},
		{"beside one with a name that is none", whole, `{"format":1,"names":["a/b"]}`, "free.test:5000", "are not known"},
		{"beside one without an identity that can be read", "{", known, "free.test:5000", "`trustcast-agent leave b.test:7443`"},
	} {
		write(identity, c.identity)
		write(names, c.names)
		asked, err := certs.ParseName(c.asked, certs.DefaultPort)
		if err != nil {
			t.Fatal(err)
		}
		switch err := cfg.unclaimed([]certs.Name{asked}); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

// TestChangedNamesAreLogged: a name that comes later is worth a line, those of the first
// offer are not.
func TestChangedNamesAreLogged(t *testing.T) {
	first, pair := authorityFor(t, "registry.test")
	more, morePair := authorityFor(t, "registry.test", "alias.test")
	h := newDockerHost(t)
	var log bytes.Buffer
	h.log = slog.New(slog.NewTextHandler(&log, nil))
	offer := func(generation uint64, names []string, leaf, root *x509.Certificate) {
		t.Helper()
		o := offerOf(generation, generation, leaf, root)
		o.Names = names
		if err := h.consider(o); err != nil {
			t.Fatal(err)
		}
	}
	offer(1, []string{"registry.test:5000"}, pair.Leaf, first)
	offer(2, []string{"registry.test:5000"}, pair.Leaf, first)
	if strings.Contains(log.String(), "names") {
		t.Errorf("nothing has changed: %s", &log)
	}
	offer(3, []string{"registry.test:5000", "alias.test:5000"}, morePair.Leaf, more)
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), `names="registry.test:5000, alias.test:5000"`) {
		t.Errorf("a name was added, and the log says %q", &log)
	}
}
