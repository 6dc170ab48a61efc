package manual

import (
	"fmt"
	"regexp"
	"strings"
)

// Edition is when and of which version a page is.
type Edition struct {
	// Date is like 2026-11-30.
	Date, Version string
}

var (
	// commands are what texts put in single quotes.
	commands = regexp.MustCompile(`(^|[\s(])'([^']+)'`)
	escaped  = strings.NewReplacer("<", "&lt;", "*", `\*`)
	groff    = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...", "–", `\(en`)
)

// File is the name of the page's file, like trustcast-user.1.
func (p Page) File() string { return strings.ReplaceAll(p.Name, " ", "-") + ".1" }

// Roff is the man page, in the macros of man(7).
func (p Page) Roff(e Edition) string {
	var b strings.Builder
	name := strings.ReplaceAll(p.Name, " ", "-")
	fmt.Fprintf(&b, ".\\\" Written by make man; change the command instead.\n.TH %s 1 %s \"trustcast %s\" \"User Commands\"\n", strings.ToUpper(groff.Replace(name)), e.Date, e.Version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", groff.Replace(name), text(p.Short))
	p.synopsis(&b)
	p.description(&b)
	p.options(&b)
	section(&b, "COMMANDS", p.Others)
	examples(&b, "EXAMPLES", p)
	section(&b, "EXIT STATUS", ExitCodes)
	section(&b, "ENVIRONMENT", p.environment())
	section(&b, "FILES", p.Files)
	if len(p.See) > 0 {
		var see []string
		for _, page := range p.See {
			see = append(see, reference(page))
		}
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(see, ",\n"))
	}
	return b.String()
}

func (p Page) synopsis(b *strings.Builder) {
	b.WriteString(".SH SYNOPSIS\n")
	var usages []string
	for _, c := range append([]Page{p}, p.Commands...) {
		if c.Usage != "" {
			usages = append(usages, c.Usage)
		}
	}
	if len(usages) == 0 {
		usages = []string{p.Name + " COMMAND"}
	}
	for i, usage := range usages {
		if i > 0 {
			b.WriteString(".br\n")
		}
		rest := strings.TrimPrefix(usage, p.Name)
		fmt.Fprintf(b, "\\fB%s\\fR%s\n", groff.Replace(p.Name), groff.Replace(rest))
	}
}

func (p Page) description(b *strings.Builder) {
	b.WriteString(".SH DESCRIPTION\n" + text(p.Short) + ".\n")
	paragraphs(b, p)
	for _, c := range p.Commands {
		fmt.Fprintf(b, ".SS %s\n%s.\n", quoted(c.Name), text(c.Short))
		paragraphs(b, c)
		flags(b, c.Flags)
		if c.Example != "" {
			b.WriteString(".PP\nFor example:\n.PP\n")
			lines(b, c.examples())
		}
	}
}

func paragraphs(b *strings.Builder, p Page) {
	for _, paragraph := range p.paragraphs() {
		fmt.Fprintf(b, ".PP\n%s\n", text(paragraph))
	}
}

func (p Page) options(b *strings.Builder) {
	if len(p.Flags)+len(p.Shared) == 0 {
		return
	}
	b.WriteString(".SH OPTIONS\n")
	flags(b, p.Flags)
	flags(b, p.Shared)
}

func flags(b *strings.Builder, all []Flag) {
	for _, f := range all {
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n%s\n", groff.Replace(f.Spelled()), text(f.meaning()))
	}
}

// environment lists the variables that set a flag, each once.
func (p Page) environment() []Entry {
	var all []Entry
	seen := map[string]bool{}
	for _, c := range append([]Page{p, {Flags: p.Shared}}, p.Commands...) {
		for _, f := range c.Flags {
			if name := f.variable(); name != "" && !seen[name] {
				seen[name] = true
				all = append(all, Entry{name, "counts where --" + f.Name + " is not given"})
			}
		}
	}
	return all
}

func section(b *strings.Builder, name string, entries []Entry) {
	if len(entries) == 0 {
		return
	}
	b.WriteString(".SH " + name + "\n")
	for _, e := range entries {
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n%s\n", groff.Replace(e.Term), text(e.Meaning))
	}
}

func examples(b *strings.Builder, name string, p Page) {
	if p.Example != "" {
		b.WriteString(".SH " + name + "\n")
		lines(b, p.examples())
	}
}

// lines stand as they are.
func lines(b *strings.Builder, all []string) {
	b.WriteString(".nf\n.RS 4\n")
	for _, line := range all {
		b.WriteString(safe(groff.Replace(line)) + "\n")
	}
	b.WriteString(".RE\n.fi\n")
}

// text is running text: what stands in single quotes is bold.
func text(s string) string {
	parts := []string{}
	rest := s
	for {
		m := commands.FindStringSubmatchIndex(rest)
		if m == nil {
			break
		}
		parts = append(parts, groff.Replace(rest[:m[3]]), `\fB`, groff.Replace(rest[m[4]:m[5]]), `\fR`)
		rest = rest[m[1]:]
	}
	parts = append(parts, groff.Replace(rest))
	return safe(strings.Join(parts, ""))
}

// safe keeps a line from being read as a request.
func safe(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, `\(aq`) {
		return `\&` + line
	}
	return line
}

func quoted(s string) string { return `"` + groff.Replace(s) + `"` }

// reference is trustcast(1) with its name in bold.
func reference(page string) string {
	name, rest, _ := strings.Cut(page, "(")
	return `\fB` + groff.Replace(name) + `\fR(` + rest
}
