package records

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzOpen opens a store in which one file is arbitrary: it is refused by its
// name, or read, changed and read again like any other.
func FuzzOpen(f *testing.F) {
	good := []byte(`{"format":1,"rev":7,"value":{"text":"hello"}}`)
	if _, err := parse("good", good); err != nil {
		f.Fatalf("a good record is refused: %v", err)
	}
	f.Add(good)
	for _, s := range []string{
		"", "{}", "null", "[]", `{"format":1,"rev":1,"value":null}`, `{"format":2,"rev":1,"value":{}}`, `{"format":-1,"rev":1,"value":1}`,
		`{"format":1,"rev":18446744073709551615,"value":{"text":"last"}}`, `{"format":1,"rev":1,"value":{"text":"a","more":1}}`,
		`{"format":1,"rev":1,"value":"` + "\xff" + `"}`, `{"format":1,"FORMAT":1,"rev":1,"rev":2,"value":{}}`, string(good) + string(good),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "fuzzed.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		var raw json.RawMessage
		rev, err := s.Get("fuzzed", &raw)
		if err != nil {
			t.Fatalf("opened, and then: %v", err)
		}
		var v value
		_, _ = s.Get("fuzzed", &v) // refused or not, without a panic
		next, err := s.Put("fuzzed", rev, raw)
		if err != nil || next <= rev {
			t.Fatalf("revision %d is followed by %d (%v)", rev, next, err)
		}
		var again json.RawMessage
		if got, err := open(t, dir).Get("fuzzed", &again); err != nil || got != next || !bytes.Equal(compact(t, again), compact(t, raw)) {
			t.Errorf("written %d %s, read %d %s (%v)", next, raw, got, again, err)
		}
	})
}

// compact takes out what writing changes and nobody means.
func compact(t *testing.T, raw json.RawMessage) []byte {
	out, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
