package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// duration is a flag like 90d, 1d12h or 10m; zero means that the server's
// default counts.
type duration time.Duration

// String is empty for zero: the help text names the default.
func (d *duration) String() string { return formatDuration(time.Duration(*d)) }
func (d *duration) Type() string   { return "duration" }

// Set takes a positive duration, with days as well.
func (d *duration) Set(s string) error {
	v, err := parseDuration(s)
	if err != nil {
		return err
	}
	*d = duration(v)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if n, after, ok := strings.Cut(s, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration; write it like 90d, 12h or 10m", s)
		}
		days, rest = time.Duration(count)*24*time.Hour, after
	}
	var hours time.Duration
	if rest != "" || days == 0 {
		var err error
		if hours, err = time.ParseDuration(rest); err != nil {
			return 0, fmt.Errorf("%q is no duration; write it like 90d, 12h or 10m", s)
		}
	}
	if days+hours <= 0 || hours < 0 {
		return 0, fmt.Errorf("%q is not a positive duration", s)
	}
	return days + hours, nil
}

// formatDuration writes one as parseDuration reads it; zero is empty.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d <= 0:
		return ""
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String() // like 1h0m0s
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// lifetime is a duration or "never", which is negative as in the protocol.
type lifetime time.Duration

// String is empty for zero, as a duration's.
func (l *lifetime) String() string {
	if *l < 0 {
		return "never"
	}
	return formatDuration(time.Duration(*l))
}
func (l *lifetime) Type() string { return "duration" }

// Set takes a positive duration or "never".
func (l *lifetime) Set(s string) error {
	if s == "never" {
		*l = -1
		return nil
	}
	v, err := parseDuration(s)
	if err != nil {
		return err
	}
	*l = lifetime(v)
	return nil
}

// age is a duration of which zero means none.
type age time.Duration

func (a *age) String() string {
	if *a == 0 {
		return "0s"
	}
	return formatDuration(time.Duration(*a))
}
func (a *age) Type() string { return "duration" }

// Set takes a duration, or 0.
func (a *age) Set(s string) error {
	if s == "0" || s == "0s" {
		*a = 0
		return nil
	}
	v, err := parseDuration(s)
	if err != nil {
		return err
	}
	*a = age(v)
	return nil
}

// number is a flag with a whole number in bounds.
type number struct{ value, least, most int }

func (n *number) String() string { return strconv.Itoa(n.value) }
func (n *number) Type() string   { return "int" }

// Set takes a number from least to most.
func (n *number) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < n.least || v > n.most {
		return fmt.Errorf("%q is no number from %d to %d", s, n.least, n.most)
	}
	n.value = v
	return nil
}

// choice is a flag with a fixed set of values; the first is the default.
type choice struct {
	value   string
	allowed []string
	// shapes, of -o alone, are values of the types that are printed as JSON; the
	// reference is written from them.
	shapes []any
}

func newChoice(allowed ...string) choice { return choice{value: allowed[0], allowed: allowed} }

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.allowed, "|") }

// Set takes one of the allowed values.
func (c *choice) Set(s string) error {
	for _, v := range c.allowed {
		if s == v {
			c.value = s
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", s, strings.Join(c.allowed, ", "))
}

// output adds -o to a command that prints data: with json, a value of one of these
// types, for which docs/reference/json.md is written.
func output(flags *pflag.FlagSet, shapes ...any) *choice {
	c := newChoice("text", "json")
	c.shapes = shapes
	flags.VarP(&c, "output", "o", "how to print")
	return &c
}

func (c *choice) json() bool { return c.value == "json" }

// byteSize is a flag like 1GiB or 500MB; "0" turns off, which is negative here; zero
// means that the server's default counts.
type byteSize int64

func (b *byteSize) String() string { return "" } // the help text names the default
func (b *byteSize) Type() string   { return "size" }

// Set takes a number of bytes with a unit.
func (b *byteSize) Set(s string) error {
	v, err := units.RAMInBytes(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no size; write it like 1GiB or 500MiB, or 0 to turn it off", s)
	}
	*b = byteSize(v)
	if v == 0 {
		*b = -1
	}
	return nil
}
