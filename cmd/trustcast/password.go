package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"strings"

	"golang.org/x/term"

	"github.com/trustcast/trustcast/internal/cli"
)

// longestPassword bounds what is read; bcrypt takes 72 bytes, and the server
// says so about anything longer.
const longestPassword = 4096

// password asks for a new password: from stdin when told so, else from a
// person at a terminal, else empty, which means that one is generated.
func (a *app) password(user string, fromStdin bool) (string, error) {
	if fromStdin {
		return a.passwordFromStdin()
	}
	tty, ok := terminal(a.stdin)
	if !ok {
		return "", nil
	}
	first, err := a.prompt(int(tty.Fd()), "Password of "+user+" (empty: one is generated): ")
	if err != nil || first == "" {
		return "", err
	}
	second, err := a.prompt(int(tty.Fd()), "Again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", cli.Errorf(cli.Usage, "the two passwords differ; nothing was changed, run the command again")
	}
	return first, nil
}

func (a *app) passwordFromStdin() (string, error) {
	line, err := bufio.NewReader(io.LimitReader(a.stdin, longestPassword)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", cli.Errorf(cli.Failed, "read the password from standard input: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", cli.Errorf(cli.Usage, "the password on standard input is empty; give one, or leave --password-stdin away to have one generated")
	}
	return line, nil
}

func (a *app) prompt(fd int, text string) (string, error) {
	_, _ = io.WriteString(a.stderr, text) // the answer decides, not the question
	line, err := term.ReadPassword(fd)
	_, _ = io.WriteString(a.stderr, "\n")
	if err != nil {
		return "", cli.Errorf(cli.Failed, "read the password from the terminal: %w; --password-stdin works without one", err)
	}
	return string(line), nil
}

// generated returns a password of at least 128 random bits.
func generated() string { return rand.Text() }
