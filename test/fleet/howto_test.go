//go:build linux

package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var howToBlock = regexp.MustCompile("(?s)<!-- tested: (build|server|host|plain) -->\n```sh\n(.*?)```")

// howToBlocks returns the how-to's commands, without their remarks.
func howToBlocks(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/how-to/run-in-containers.md")
	must(t, err)
	blocks := map[string][]string{}
	for _, m := range howToBlock.FindAllStringSubmatch(string(text), -1) {
		var lines []string
		for line := range strings.Lines(m[2]) {
			command, _, _ := strings.Cut(line, "  #")
			lines = append(lines, strings.TrimSpace(command))
		}
		blocks[m[1]] = append(blocks[m[1]], strings.Join(lines, "\n"))
	}
	for where, want := range map[string]int{"build": 1, "server": 4, "host": 2, "plain": 1} {
		if len(blocks[where]) != want {
			t.Fatalf("the how-to has %d tested blocks for %s, want %d", len(blocks[where]), where, want)
		}
	}
	return blocks
}

// block runs one of the how-to's blocks and returns what each line printed.
func (c *composed) block(t *testing.T, h *host, where string, number int) map[string]string {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(c.blocks[where][number]) {
		line = strings.TrimSpace(line)
		said[line] = c.line(t, h, line)
	}
	return said
}

// line runs one line of a shell on a host, in its copy of deploy.
func (c *composed) line(t *testing.T, h *host, line string) string {
	t.Helper()
	out, err := c.try(h, line)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", h.name, line, err, out)
	}
	return out
}

func (c *composed) try(h *host, line string) (string, error) {
	cmd := exec.Command("timeout", "120", "bash", "-o", "pipefail", "-c", line)
	cmd.Dir = c.deploy(h)
	cmd.Env = c.fleet.run.env("DOCKER_HOST="+h.socket(), "DOCKER_CONFIG="+h.path("client"), "TRUSTCAST_NAME="+h.name)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// report is what the containers said.
func (c *composed) report() string {
	var text strings.Builder
	for _, h := range c.fleet.hosts {
		out, err := c.try(h, "docker-compose ps; docker-compose logs --tail 30 2>&1")
		fmt.Fprintf(&text, "%s: %v\n%s\n", h.name, err, out)
	}
	return text.String()
}
