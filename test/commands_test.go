package test

import (
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCommandsInPages holds every page to the programs.
func TestCommandsInPages(t *testing.T) {
	programs := newPrograms(t)
	t.Run("commands", programs.testCommands)
	t.Run("flags alone", programs.testFlags)
	t.Run("wrong ones are found", programs.testWrong)
}

// testCommands wants each command of ours that a page shows, in a block or between
// backticks, to have its verbs and its flags.
func (p *programs) testCommands(t *testing.T) {
	seen := 0
	for _, page := range pages(t) {
		if strings.HasPrefix(page.path, "docs/decisions/") || page.path == "CHANGELOG.md" {
			continue // they tell the past
		}
		for _, c := range commandsIn(page.text) {
			seen++
			for _, wrong := range p.wrongIn(c) {
				if slices.Contains(meant, wrong) {
					continue
				}
				t.Errorf("%s: `%s`: no %q", page.path, strings.Join(c, " "), wrong)
			}
		}
	}
	t.Logf("%d commands in pages", seen)
	if seen < 150 {
		t.Errorf("only %d commands were found", seen)
	}
}

// meant are commands that a page shows because they are wrong.
var meant = []string{"trustcast status --nope"}

// foreign are flags of others' programs that pages speak of.
var foreign = []string{"--purge", "--with-registry-auth"}

// testFlags wants a flag that a page names alone to be one of some command of ours.
func (p *programs) testFlags(t *testing.T) {
	ours := p.flags("trustcast", "trustcast-agent")
	used := map[string]bool{}
	for _, page := range pages(t) {
		if strings.HasPrefix(page.path, "docs/decisions/") || page.path == "CHANGELOG.md" || !strings.HasPrefix(page.path, "docs/") && page.path != "README.md" {
			continue
		}
		for _, m := range inline.FindAllStringSubmatch(fenced.ReplaceAllString(page.text, ""), -1) {
			flag := aFlag.FindString(m[1])
			if flag == "" || ours[flag] {
				continue
			}
			if used[flag] = true; !slices.Contains(foreign, flag) {
				t.Errorf("%s names %s, which no command has", page.path, flag)
			}
		}
	}
	for _, f := range foreign {
		if !used[f] {
			t.Errorf("%s is ours, or no page names it: take it off the list", f)
		}
	}
}

var aFlag = regexp.MustCompile(`^--[a-z][a-z-]*`)

// testWrong is the negative control.
func (p *programs) testWrong(t *testing.T) {
	for text, want := range map[string][]string{
		"`trustcast ca rotate --wait --skip web-1`":                   nil,
		"`ca rotate [--wiat]`":                                        {"trustcast ca rotate --wiat"},
		"`trustcast hots ls`":                                         {"trustcast hots"},
		"`trustcast ca spin|rotate --wait`":                           {"trustcast ca spin"},
		"```sh\nssh web-1 trustcast-agent status --wait  # --no\n```": {"trustcast-agent status --wait"},
		"```sh\ntrustcast token create -q | trustcast-agent join \\\n  H:7443 --token-fiel -\n```": {"trustcast-agent join --token-fiel"},
		"```sh\ndocker exec -T server /trustcast usr ls\n```":                                      {"trustcast usr"},
		"`trustcast-agent run -x`":                                    {"trustcast-agent run -x"},
		"`trustcast COMMAND --help`, `trustcast` and trustcast alone": nil,
		"`/etc/trustcast/config.yaml` and `apt install trustcast`":    nil,
	} {
		var wrong []string
		for _, c := range commandsIn(text) {
			wrong = append(wrong, p.wrongIn(c)...)
		}
		if !slices.Equal(wrong, want) {
			t.Errorf("%s: found %q, want %q", text, wrong, want)
		}
	}
}

var (
	// inline is code between backticks, on one line.
	inline = regexp.MustCompile("`([^`\n]+)`")
	// called is a command of ours up to what ends it in a shell.
	called = regexp.MustCompile(`(?:^|[\s"'(;|&])(?:/usr/bin/|/)?(trustcast(?:-agent)?)((?:[ \t]+[^\s;|&)<>"'` + "`" + `#]+(?:\|[a-z-]+)*)+)`)
	// noun begins a command whose program goes without saying.
	noun = regexp.MustCompile(`^(?:ca|host|user|token|fleet) [a-z]`)
	// packaging are commands that take our names for packages, units and namespaces.
	packaging = regexp.MustCompile(`\b(?:systemctl|journalctl|apt|dpkg)\b[^|;&\n]*|-n trustcast\b`)
	// remark is the rest of a line of a shell that is not run.
	remark = regexp.MustCompile(`(?m)(?:^|\s)#.*$`)
)

// commandsIn finds the commands of ours in a page, as words with the program first.
func commandsIn(text string) (all [][]string) {
	find := func(code string) {
		for _, m := range called.FindAllStringSubmatch(packaging.ReplaceAllString(code, ""), -1) {
			all = append(all, append([]string{m[1]}, strings.Fields(m[2])...))
		}
	}
	for _, block := range fenced.FindAllStringSubmatch(text, -1) {
		code := strings.ReplaceAll(block[2], "\\\n", " ")
		if block[1] == "sh" {
			code = remark.ReplaceAllString(code, "")
		}
		if block[1] == "console" {
			code = typed(code)
		}
		find(code)
	}
	for _, m := range inline.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		code := strings.NewReplacer("[", " ", "]", " ", "…", " ").Replace(m[1])
		switch {
		case strings.HasPrefix(code, "trustcast"), strings.Contains(code, " /trustcast"), strings.Contains(code, "| trustcast"):
			find(code)
		case noun.MatchString(code):
			find("trustcast " + code)
		}
	}
	return all
}

// typed is what of a transcript was typed.
func typed(transcript string) string {
	var lines []string
	for line := range strings.Lines(transcript) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			lines = append(lines, command)
		}
	}
	return strings.Join(lines, "")
}

// programs are both programs, and what their help says.
type programs struct {
	t    *testing.T
	bin  string
	help map[string]help
}

// help is what a command says that it takes.
type help struct {
	commands map[string]bool
	flags    map[string]bool
}

func newPrograms(t *testing.T) *programs {
	t.Helper()
	return &programs{t, programsDir(t), map[string]help{}}
}

var (
	listed = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) +\S`)
	flagIn = regexp.MustCompile(`(?m)^ +(?:(-[a-zA-Z])(?:, | ))?(--[a-z][a-z-]*)?`)
)

// of is the help of a command, without the words that take arguments.
func (p *programs) of(command string) help {
	p.t.Helper()
	if h, ok := p.help[command]; ok {
		return h
	}
	words := strings.Fields(command)
	cmd := exec.Command(filepath.Join(p.bin, words[0]), append(words[1:], "--help")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s --help: %v\n%s", command, err, out)
	}
	h := help{map[string]bool{"help": true}, map[string]bool{"--help": true, "-h": true}}
	_, rest, _ := strings.Cut(string(out), "Commands:\n")
	list, _, _ := strings.Cut(rest, "\n\n")
	for _, m := range listed.FindAllStringSubmatch(list, -1) {
		h.commands[m[1]] = true
	}
	_, flags, _ := strings.Cut(string(out), "\nFlags")
	for _, m := range flagIn.FindAllStringSubmatch(flags, -1) {
		h.flags[m[1]], h.flags[m[2]] = true, true
	}
	p.help[command] = h
	return h
}

// flags are those of these commands and of all below them.
func (p *programs) flags(commands ...string) map[string]bool {
	all := map[string]bool{}
	for _, c := range commands {
		h := p.of(c)
		maps.Copy(all, h.flags)
		for sub := range h.commands {
			if sub != "help" {
				maps.Copy(all, p.flags(c+" "+sub))
			}
		}
	}
	return all
}

// wrongIn names what of a command its program does not have, with the command.
func (p *programs) wrongIn(command []string) (wrong []string) {
	at := command[0]
	for _, word := range command[1:] {
		h := p.of(at)
		switch {
		case strings.HasPrefix(word, "-") && word != "-":
			flag, _, _ := strings.Cut(strings.TrimRight(word, ".,:"), "=")
			if !h.flags[flag] && flag != "--version" {
				wrong = append(wrong, at+" "+flag)
			}
		case len(h.commands) > 1:
			alternatives := strings.Split(word, "|")
			for _, a := range alternatives {
				if isWord.MatchString(a) && !h.commands[a] {
					return append(wrong, at+" "+a)
				}
			}
			last := alternatives[len(alternatives)-1]
			if !h.commands[last] {
				return wrong // COMMAND, or a sentence's end
			}
			if last != "help" {
				at += " " + last
			}
		}
	}
	return wrong
}

// isWord is what could be a command.
var isWord = regexp.MustCompile(`^[a-z][a-z-]*$`)
