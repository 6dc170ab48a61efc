package cli_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trustcast/trustcast/test/ports"
)

// Bounds on waiting; a healthy run needs a fraction of a second of them.
const (
	patience = 60 * time.Second
	poll     = 50 * time.Millisecond
	// grace is how long a process may take to end gracefully when a script is
	// over, before it is killed.
	grace = 10 * time.Second
)

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"start": start, "listening": listening, "terminate": terminate, "interrupt": interrupt, "signal": sendSignal, "exits": exits,
		"code": code, "waitfor": waitfor, "waitjson": waitjson, "waitlog": waitlog, "freeport": freeport, "capture": capture, "field": field, "json": jsonCheck, "mode": mode, "files": files, "ports": portsCheck, "tty": tty, "oldregistry": oldRegistry, "verifies": verifies, "volume": volume,
	}
}

// code N [<FILE] PROGRAM [ARG...]: the program must end with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N [<FILE] PROGRAM [ARG...]")
	}
	want, args := args[0], args[1:]
	var stdin []byte
	if file, ok := strings.CutPrefix(args[0], "<"); ok {
		stdin, args = []byte(ts.ReadFile(file)), args[1:]
	}
	got, stdout, stderr := try(ts, stdin, args)
	_, _ = ts.Stdout().Write(stdout)
	_, _ = ts.Stderr().Write(stderr)
	if strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s\n[stdout]\n%s[stderr]\n%s", got, want, stdout, stderr)
	}
	ts.Check(conform(args, stdout))
	if bytes.ContainsRune(append(stdout, stderr...), '\x1b') {
		ts.Fatalf("there is no terminal, and the output has a control sequence:\n%q\n%q", stdout, stderr)
	}
}

func try(ts *testscript.TestScript, stdin []byte, args []string) (code int, stdout, stderr []byte) {
	cmd := command(ts, args)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	ts.Check(cmd.Start())
	bound := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer bound.Stop()
	if err := cmd.Wait(); err != nil {
		if e := new(exec.ExitError); !errors.As(err, &e) {
			ts.Fatalf("%v: %v", args, err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.Bytes(), errs.Bytes()
}

// [!] waitfor PROGRAM [ARG...]: repeats it until it succeeds (fails).
func waitfor(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: waitfor PROGRAM [ARG...]")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		got, stdout, stderr := try(ts, nil, args)
		if (got == 0) != neg {
			_, _ = ts.Stdout().Write(stdout)
			_, _ = ts.Stderr().Write(stderr)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still exit code %d\n[stdout]\n%s[stderr]\n%s", got, stdout, stderr)
		}
	}
}

// waitjson PATH WANT PROGRAM [ARG...]: repeats it until that value of its
// stdout is WANT, whatever its exit code.
func waitjson(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: waitjson PATH WANT PROGRAM [ARG...]")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		_, stdout, stderr := try(ts, nil, args[2:])
		v, found := lookup(stdout, args[0])
		if found && text(v) == args[1] {
			ts.Check(conform(args[2:], stdout))
			_, _ = ts.Stdout().Write(stdout)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s is still %s\n[stdout]\n%s[stderr]\n%s", args[0], text(v), stdout, stderr)
		}
	}
}

// freeport VAR...: ports that are free now, and given to nobody who names none. One
// whose name begins with BUSY is listened at.
func freeport(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		address, err := ports.Free("127.0.0.1")
		ts.Check(err)
		_, port, err := net.SplitHostPort(address)
		ts.Check(err)
		ts.Setenv(name, port)
		if strings.HasPrefix(name, "BUSY") {
			lis, err := net.Listen("tcp", address)
			ts.Check(err)
			ts.Defer(func() { _ = lis.Close() })
		}
	}
}

// volume VAR: sets it to the name of a Docker volume that is gone after the script, if
// it was made.
func volume(ts *testscript.TestScript, _ bool, args []string) {
	name := "tct-" + strings.ToLower(rand.Text()[:10])
	ts.Setenv(args[0], name)
	ts.Defer(func() {
		left, err := exec.Command("docker", "ps", "--all", "--quiet", "--filter", "volume="+name).Output()
		ts.Check(err)
		for _, id := range strings.Fields(string(left)) {
			ts.Check(exec.Command("docker", "rm", "--force", id).Run())
		}
		ts.Check(exec.Command("docker", "volume", "rm", "--force", name).Run())
	})
}

// capture VAR: sets it to the last stdout.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// field PATH VAR: sets it to a value of the last stdout.
func field(ts *testscript.TestScript, _ bool, args []string) {
	v, found := lookup([]byte(ts.ReadFile("stdout")), args[0])
	if !found {
		ts.Fatalf("%s is not there", args[0])
	}
	ts.Setenv(args[1], text(v))
}

// [!] json PATH WANT: a value of the last stdout, like hosts.0.name; hosts.len
// counts. WANT is as Go prints it, null for null; without it the key must be there.
func jsonCheck(ts *testscript.TestScript, neg bool, args []string) {
	v, found := lookup([]byte(ts.ReadFile("stdout")), args[0])
	matches := found && (len(args) == 1 || text(v) == args[1])
	if matches == neg {
		ts.Fatalf("%s is %s (present: %v), want %v", args[0], text(v), found, args[1:])
	}
}

func text(v any) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(v)
}

func lookup(data []byte, path string) (v any, found bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // 3, not 3e+00
	if err := dec.Decode(&v); err != nil || path == "." {
		return v, err == nil
	}
	for _, key := range strings.Split(path, ".") {
		if v, found = child(v, key); !found {
			return nil, false
		}
	}
	return v, true
}

func child(v any, key string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		c, ok := v[key]
		return c, ok
	case []any:
		if key == "len" {
			return len(v), true
		}
		i, err := strconv.Atoi(key)
		if err != nil || i >= len(v) {
			return nil, false
		}
		return v[i], true
	}
	return nil, false
}

// [!] verifies CAFILE NAME ADDRESS: who trusts what is in CAFILE alone verifies what
// ADDRESS serves for NAME.
func verifies(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: verifies CAFILE NAME ADDRESS")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[0]))) {
		ts.Fatalf("%s has no certificate", args[0])
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{RootCAs: roots, ServerName: args[1]}}
	conn, err := d.Dial("tcp", args[2])
	if err == nil {
		ts.Check(conn.Close())
	}
	refused := new(tls.CertificateVerificationError)
	switch {
	case err != nil && !errors.As(err, &refused):
		ts.Fatalf("no handshake with %s: %v", args[2], err)
	case (err == nil) == neg:
		ts.Fatalf("%s for %s, verified with %s: %v", args[2], args[1], args[0], err)
	}
}

// mode PERM FILE: the file's permissions, like 600.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	fi, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	if (fi.Mode().Perm() == fs.FileMode(want)) == neg {
		ts.Fatalf("%s has mode %o", args[1], fi.Mode().Perm())
	}
}
