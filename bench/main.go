// Command bench measures trustcast beside its peers, in the same run: what a fleet
// feels. `make bench` runs it from the top of the tree.
//
// Each table interleaves ours and the peers over several rounds and gives medians
// with their spread. What counts are the ratios: absolute figures belong to the
// machine. Everything listens on loopback or in namespaces made for it, is bounded in
// time, and is gone afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// limit ends a run that hangs.
const limit = 30 * time.Minute

// experiments in the order in which they run.
var experiments = []struct {
	name string
	run  func(context.Context, *lab) (*table, error)
}{
	{"auth", auth},
	{"blobs", blobs},
	{"docker", dockerEngine},
	{"idle", idle},
	{"footprint", footprint},
	{"flood", flood},
	{"propagation", propagation},
	{"roads", roads},
	{"growth", growth},
	{"records", recordsTable},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == fleetVerb {
		return fleetMain(ctx)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("table", "", "run one `NAME` only, or several with commas between them")
	rounds := flags.Int("rounds", 3, "measure each figure so many times")
	out := flags.String("out", "bench", "`directory` for results.md and plots/")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l, err := newLab(*rounds)
	if err != nil {
		return err
	}
	began := time.Now()
	var tables []*table
	var failed error
	for _, e := range experiments {
		if !slices.Contains(chosen, e.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", e.name)
		t, err := e.run(ctx, l)
		err = errors.Join(err, l.endAll())
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", e.name, err))
			continue
		}
		t.name, t.took = e.name, time.Since(began)
		began = time.Now()
		fmt.Println(t.markdown(""))
		tables = append(tables, t)
	}
	return errors.Join(failed, write(*out, tables, *only != ""), l.clear())
}

func choose(only string) ([]string, error) {
	var all []string
	for _, e := range experiments {
		all = append(all, e.name)
	}
	if only == "" {
		return all, nil
	}
	chosen := strings.Split(only, ",")
	for _, name := range chosen {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("there is no table %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}

// write writes the plots, and the page when all tables are there.
func write(dir string, tables []*table, some bool) error {
	plots := filepath.Join(dir, "plots")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	page := header() + inShort(tables)
	for _, t := range tables {
		if err := t.plot(filepath.Join(plots, t.name+".svg")); err != nil {
			return err
		}
		page += t.markdown("plots/" + t.name + ".svg")
	}
	fmt.Print(inShort(tables))
	if some { // the page is of one whole run
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "results.md"), []byte(page), 0o644)
}
