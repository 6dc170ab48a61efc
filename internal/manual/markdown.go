package manual

import (
	"fmt"
	"strings"
)

// Markdown is the reference of a program: pages in the order in which they are read.
func Markdown(pages []Page) string {
	var b strings.Builder
	for _, p := range pages {
		for _, c := range append([]Page{p}, p.Commands...) {
			c.markdown(&b)
		}
	}
	return b.String()
}

func (p Page) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n%s.\n", p.Name, inline(p.Short))
	if p.Usage != "" {
		fmt.Fprintf(b, "\n```\n%s\n```\n", p.Usage)
	}
	for _, paragraph := range p.paragraphs() {
		fmt.Fprintf(b, "\n%s\n", inline(paragraph))
	}
	flags := p.Flags
	if p.Usage == "" && len(p.Commands) == 0 {
		flags = p.Shared // the program's own page has them, for all
	}
	if len(flags) > 0 {
		b.WriteString("\n| flag | default | meaning |\n| --- | --- | --- |\n")
	}
	for _, f := range flags {
		fmt.Fprintf(b, "| %s | %s | %s |\n", code(f.Spelled()), code(f.Default), cell(f.Usage))
	}
	if p.Example != "" {
		fmt.Fprintf(b, "\n```console\n%s\n```\n", strings.Join(p.examples(), "\n"))
	}
	b.WriteString("\n")
}

// paragraphs of the long text, without what only repeats the short one.
func (p Page) paragraphs() []string {
	var all []string
	for _, paragraph := range strings.Split(p.Long, "\n\n") {
		paragraph = strings.TrimSpace(strings.TrimPrefix(paragraph, p.Short+"."))
		if paragraph != "" {
			all = append(all, paragraph)
		}
	}
	return all
}

// examples are the lines of the example without their indentation.
func (p Page) examples() []string {
	var lines []string
	for line := range strings.SplitSeq(p.Example, "\n") {
		lines = append(lines, strings.TrimPrefix(line, "  "))
	}
	return lines
}

// inline makes what stands in single quotes code, and keeps the rest from being markup.
func inline(s string) string {
	return commands.ReplaceAllString(escaped.Replace(s), "$1`$2`")
}

func cell(s string) string { return strings.ReplaceAll(inline(s), "|", `\|`) }

func code(s string) string {
	if s == "" {
		return "–"
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}
