package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// wide is a value of -o: a table with all columns.
const wide = "wide"

// hostFilter says which hosts `host ls` lists; the zero value lists all.
type hostFilter struct {
	patterns        []string
	states, gossips choices
	outdated        bool
}

func (a *app) hostList() *cobra.Command {
	c := &cobra.Command{
		Use: "ls [PATTERN...]", Short: "List hosts, all or those that are asked for",
		Long:    "List hosts, all or those whose name is like one of the patterns (web-*, db-[12], an exact name) and that all the flags fit. None is no error.",
		Example: "  trustcast host ls\n  trustcast host ls 'web-*' --state pending,failed -o wide\n  trustcast host ls --gossip unreachable           # stream and poll suffice, a hint takes longer\n  trustcast host ls -o json\n  for host in $(trustcast host ls -q --outdated); do scp trustcast-agent_*.deb $host: && ssh $host 'apt-get install -y ./trustcast-agent_*.deb'; done",
		Args:    patterns,
	}
	f := hostFilter{states: choices{allowed: hostStates}, gossips: choices{allowed: []string{"ok", "unreachable", "off"}}}
	c.Flags().Var(&f.states, "state", "only hosts in this state; may be repeated")
	c.Flags().Var(&f.gossips, "gossip", "only hosts whose gossip is so; may be repeated")
	c.Flags().BoolVar(&f.outdated, "outdated", false, "only hosts whose agent has another version than the server")
	quiet := c.Flags().BoolP("quiet", "q", false, "print names alone, whatever -o says")
	out := newChoice("text", wide, "json")
	out.shapes = []any{[]hostJSON{}}
	c.Flags().VarP(&out, "output", "o", "how to print; wide has all columns")
	config.FromCommandLine(c.Flags(), "state", "gossip", "outdated")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := a.now(c.Context())
		if err != nil {
			return err
		}
		f.patterns = args
		all := len(s.GetHosts())
		s.Hosts = slices.DeleteFunc(s.Hosts, func(h *pb.Host) bool { return !f.fits(h, s.GetVersion()) })
		switch {
		case *quiet:
			return printNames(a.stdout, s.GetHosts(), (*pb.Host).GetName)
		case out.json():
			return cli.JSON(a.stdout, newHostsJSON(s.GetHosts()))
		case len(s.GetHosts()) == 0 && all > 0:
			a.say("None of %s is like that.", count(all, "host"))
		}
		if out.value == wide {
			return printHostsWide(a.stdout, s)
		}
		return printHosts(a.stdout, s)
	}
	return c
}

func (f hostFilter) fits(h *pb.Host, version string) bool {
	return alike(f.patterns, h.GetName()) && f.states.fit(h.GetState()) && f.gossips.fit(h.GetGossip()) &&
		(!f.outdated || h.GetVersion() != version)
}

func printHosts(w io.Writer, s *pb.Status) error {
	rows := []string{row("HOST", "STATE", "GENERATION", "LAST SEEN", "GOSSIP", "VERSION", "PROBLEM")}
	for _, h := range s.GetHosts() {
		rows = append(rows, row(h.GetName(), h.GetState(), strconv.FormatUint(h.GetGeneration(), 10),
			ago(h.GetLastSeen(), s.GetTime()), h.GetGossip(), h.GetVersion(), both(h.GetProblem(), skew(h))))
	}
	return table(w, rows...)
}

func printHostsWide(w io.Writer, s *pb.Status) error {
	rows := []string{row("HOST", "ID", "STATE", "GENERATION", "LAST SEEN", "ADDRESS", "CONNECTED", "COVERED", "PRESENT", "GOSSIP", "HANDSHAKE", "CLOCK", "VERSION", "ENROLLED", "IDENTITY UNTIL", "PROBLEM")}
	for _, h := range s.GetHosts() {
		rows = append(rows, row(h.GetName(), h.GetId(), h.GetState(), strconv.FormatUint(h.GetGeneration(), 10),
			ago(h.GetLastSeen(), s.GetTime()), h.GetAddress(), yes(h.GetConnected()), yes(h.GetCovered()), yes(h.GetPresent()), h.GetGossip(), h.GetLive(),
			fmt.Sprintf("%+.1fs", h.GetClockSkew().AsDuration().Round(100*time.Millisecond).Seconds()), h.GetVersion(),
			day(h.GetEnrolled()), day(h.GetIdentityNotAfter()), h.GetProblem()))
	}
	return table(w, rows...)
}
