package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

// mostHosts are as many as there are records of; tags go further.
const mostHosts = 10_000

// recordsTable measures what a server has to do with all that it keeps: its start, its
// status, and the lists of its registry.
func recordsTable(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title: "Records: from 10 to 10,000 hosts, to 100,000 tags", sizes: []float64{10, 100, 1000, mostHosts, 100_000},
		unequal: []string{
			"records and tags were written as files, not by joining and pushing; the hosts have not reported, so their lines say why they are waited for",
			"files are on tmpfs when there is one, and cached by the kernel otherwise",
			"all tags are of one manifest in one repository, and have no index of their former manifests",
		},
	}
	for _, size := range t.sizes {
		t.subjects = append(t.subjects, fmt.Sprintf("%.0f", size))
	}
	fast, err := l.inMemory(ctx)
	if err != nil {
		return nil, err
	}
	k, err := keep(ctx, fast)
	for i := range t.subjects {
		if err == nil {
			err = k.measure(ctx, t, t.subjects[i], int(t.sizes[i]))
		}
	}
	var rows []string
	for _, r := range t.rows {
		if r.unit != "KiB" { // what is printed is of the records, one for one
			rows = append(rows, r.what)
		}
	}
	t.linear(rows...)
	return t, errors.Join(err, fast.clear())
}

// kept is a server whose records grow.
type kept struct {
	*lab
	data        string
	server      *contender
	hosts, tags int // written so far
	manifest    string
}

// keep makes a server with one image and ends it.
func keep(ctx context.Context, l *lab) (*kept, error) {
	c, err := l.trustcast(ctx)
	if err != nil {
		return nil, err
	}
	image, err := random.Image(1<<10, 1)
	if err != nil {
		return nil, err
	}
	if err := c.push(ctx, image); err != nil {
		return nil, err
	}
	k := &kept{lab: l, data: c.data, server: c}
	manifest, err := image.Digest()
	if err != nil {
		return nil, err
	}
	k.manifest = manifest.String()
	return k, l.endAll()
}

// measure has so many hosts and tags written, and starts the server on them.
func (k *kept) measure(ctx context.Context, t *table, subject string, size int) error {
	if err := errors.Join(k.writeHosts(min(size, mostHosts)), k.writeTags(size)); err != nil {
		return err
	}
	for range min(k.rounds, 3) {
		if err := errors.Join(k.begin(ctx, t, subject), k.lists(ctx, t, subject)); err != nil {
			return err
		}
		if size <= mostHosts {
			if err := k.status(ctx, t, subject); err != nil {
				return err
			}
		}
		if err := k.endAll(); err != nil {
			return err
		}
	}
	return nil
}

// servingLine says when a server is ready.
var servingLine = regexp.MustCompile(`what=registry address=(\S+)(?s:.*)time=(\S+) level=INFO msg=serving`)

// begin starts the server.
func (k *kept) begin(ctx context.Context, t *table, subject string) error {
	began := time.Now()
	p, err := k.start("trustcast", k.path("trustcast"), nil, "server", "--data-dir", k.data,
		"--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--gossip-listen", "off", "--http-listen", "off", "--min-free", "0")
	if err != nil {
		return err
	}
	k.server.process = p
	err = p.patiently(ctx, "serving", func() bool { return servingLine.MatchString(p.said()) })
	if err != nil {
		return err
	}
	found := servingLine.FindStringSubmatch(p.said())
	at, err := time.Parse(time.RFC3339, found[2])
	if err != nil {
		return err
	}
	k.server.address = found[1]
	used, err := p.cpu()
	if err != nil {
		return err
	}
	m, err := p.memory()
	if err != nil {
		return err
	}
	t.row("start of the server", "ms").add(subject, milliseconds(at.Sub(began)))
	t.row("start, its processor", "ms").add(subject, milliseconds(used))
	t.row("server after its start, resident", "MiB").add(subject, megabytes(m.resident))
	return nil
}

// status measures the operator's commands that tell of every host.
func (k *kept) status(ctx context.Context, t *table, subject string) error {
	before, err := k.server.cpu()
	if err != nil {
		return err
	}
	table, err := k.ask(ctx, "status")
	if err != nil {
		return err
	}
	after, err := k.server.cpu()
	if err != nil {
		return err
	}
	t.row("status", "ms").add(subject, milliseconds(table.took))
	t.row("status, the server's processor", "ms").add(subject, milliseconds(after-before))
	t.row("status, what it prints", "KiB").add(subject, float64(table.bytes)/1024)
	for _, c := range []struct {
		what string
		args []string
	}{{"status -o json", []string{"status", "-o", "json"}}, {"host ls", []string{"host", "ls"}}} {
		a, err := k.ask(ctx, c.args...)
		if err != nil {
			return err
		}
		t.row(c.what, "ms").add(subject, milliseconds(a.took))
		t.row(c.what+", what it prints", "KiB").add(subject, float64(a.bytes)/1024)
	}
	return nil
}

// asked is what a command of the operator took.
type asked struct {
	took  time.Duration
	bytes int
}

func (k *kept) ask(ctx context.Context, args ...string) (asked, error) {
	cmd := exec.CommandContext(ctx, k.path("trustcast"), append(args, "--data-dir", k.data)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	began := time.Now()
	out, err := cmd.Output()
	took := time.Since(began)
	// 3: the server answered, but hosts are not trusted yet.
	if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		return asked{}, fmt.Errorf("trustcast %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return asked{took: took, bytes: len(out) + stderr.Len()}, nil
}

// lists measures the lists of the registry: whole, and a page of them at either end.
func (k *kept) lists(ctx context.Context, t *table, subject string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: k.server.roots, ServerName: "localhost"}
	transport.ForceAttemptHTTP2 = false
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: redirected{transport, k.server.address}}
	const tags = "/v2/bench/image/tags/list"
	for _, list := range []struct{ what, path string }{
		{"", "/v2/"}, // signs in
		{"tags/list, whole", tags},
		{"tags/list, first page of 100", tags + "?n=100"},
		{"tags/list, last page", tags + "?n=100&last=" + tagName(k.tags-2)},
		{"_catalog, page of 100", "/v2/_catalog?n=100"},
		{"manifest by its tag", "/v2/bench/image/manifests/" + tagName(k.tags-1)},
	} {
		took, bytes, err := k.get(ctx, client, list.path)
		if err != nil {
			return err
		}
		if list.what != "" {
			t.row(list.what, "ms").add(subject, milliseconds(took))
		}
		if list.path == tags {
			t.row(list.what+", its size", "KiB").add(subject, float64(bytes)/1024)
		}
	}
	return nil
}

func (k *kept) get(ctx context.Context, client *http.Client, path string) (took time.Duration, bytes int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://localhost"+path, nil)
	if err != nil {
		return 0, 0, err
	}
	req.SetBasicAuth(user, password)
	req.Header.Set("Accept", accepted)
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	bytes, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("GET %s: %s", path, resp.Status))
	}
	return time.Since(began), bytes, err
}
