package cli_test

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// colour is a sequence that changes how text looks, and not where it stands.
var colour = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// tty CODE <FILE PROGRAM [ARG...]: the program has a terminal for stdin, stdout
// and stderr, on which the lines of FILE are typed; it must end with exit code
// CODE. What the terminal shows is the script's stdout.
func tty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1][0] != '<' {
		ts.Fatalf("usage: tty CODE <FILE PROGRAM [ARG...]")
	}
	master, slave, err := openTerminal()
	ts.Check(err)
	defer func() { _ = master.Close() }()
	cmd := command(ts, args[2:])
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	ts.Check(slave.Close()) // so that reading ends with the program
	bound := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer bound.Stop()
	_, err = io.WriteString(master, ts.ReadFile(strings.TrimPrefix(args[1], "<")))
	ts.Check(err)
	shown, err := io.ReadAll(master)
	if !errors.Is(err, syscall.EIO) { // how Linux says that nobody has the other side open
		ts.Check(err)
	}
	_ = cmd.Wait() // the exit code tells
	_, _ = ts.Stdout().Write(shown)
	if ts.Getenv("NO_COLOR") != "" && colour.Match(shown) {
		ts.Fatalf("NO_COLOR is set, and there is colour:\n%q", shown)
	}
	if got := cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s", got, args[0], shown)
	}
}

// openTerminal returns both sides of a new pseudo-terminal of 80 by 24.
func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	return master, slave, err
}
