package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/trustcast/trustcast/server/edge"
	"github.com/trustcast/trustcast/server/registry"
)

// replicaVariable has this program be a replica: distribution on a Unix socket.
const replicaVariable = "TRUSTCAST_TEST_REPLICA"

// TestReplicaProcess is that replica, in a process of its own that a test can
// kill. It ends with its standard input.
func TestReplicaProcess(t *testing.T) {
	root, socket, ok := strings.Cut(os.Getenv(replicaVariable), "|")
	if !ok {
		t.Skip("not a test: the other tests of this file start it as a replica")
	}
	engine, err := registry.NewEmbedded(t.Context(), registry.EmbeddedConfig{Root: root, HTTPSecret: "the same for all"})
	noError(t, err)
	replica, err := engine.Open(t.Context(), "")
	noError(t, err)
	_ = os.Remove(socket)
	lis, err := net.Listen("unix", socket)
	noError(t, err)
	srv := &http.Server{Handler: replica.Handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(lis) }() // ends with the process
	fmt.Println("serving")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// replica is one as seen from outside.
type replica struct {
	id, root, socket string
	cmd              *exec.Cmd
	input            io.Closer
}

func startReplica(t *testing.T, id, root string) *replica {
	t.Helper()
	dir, err := os.MkdirTemp("", "replica") // t.TempDir may be too long for a socket
	noError(t, err)
	t.Cleanup(func() { noError(t, os.RemoveAll(dir)) })
	r := &replica{id: id, root: root, socket: filepath.Join(dir, "s")}
	t.Cleanup(r.kill)
	r.start(t)
	return r
}

// start returns when the replica listens.
func (r *replica) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestReplicaProcess$")
	cmd.Env = append(os.Environ(), replicaVariable+"="+r.root+"|"+r.socket)
	input, err := cmd.StdinPipe()
	noError(t, err)
	output, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	r.cmd, r.input = cmd, input
	if line, err := bufio.NewReader(output).ReadString('\n'); line != "serving\n" {
		t.Fatalf("the replica said %q, %v", line, err)
	}
}

// kill is kill -9.
func (r *replica) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill() // it may have ended
	_ = r.cmd.Wait()         // "signal: killed"
	r.cmd = nil
}

func (r *replica) endpoint() edge.Endpoint { return edge.Endpoint{ID: r.id, Socket: r.socket} }

// startReplicas runs an edge before two replicas on the same data.
func startReplicas(t *testing.T, f *front) (a, b *replica) {
	t.Helper()
	root := t.TempDir()
	a, b = startReplica(t, "a", root), startReplica(t, "b", root)
	f.edge.Serve([]edge.Endpoint{a.endpoint(), b.endpoint()})
	return a, b
}

func TestPushAndPullThroughReplicas(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	startReplicas(t, f)
	c := f.client(t, "ann", "secret", ca)
	image := c.push(t, tag(t, "team/app:v1"), 3_000_000)
	c.pull(t, tag(t, "team/app:v1"), image)
	bigBlob(t, c)()
}

// call makes one request and returns its answer, read to the end.
func (c client) call(t *testing.T, method, url string, body []byte, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	noError(t, err)
	req.SetBasicAuth("ann", "secret")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.RoundTrip(req)
	noError(t, err)
	read, err := io.ReadAll(resp.Body)
	noError(t, err)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(read))
	return resp
}

// An upload that began on one replica goes on and ends on another, and nobody can
// forge where it does.
func TestUploadEndsOnAnotherReplica(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	a, b := startReplicas(t, f)
	c := f.client(t, "ann", "secret", ca)
	blob := make([]byte, 300_000)
	_, _ = rand.Read(blob)
	sum := sha256.Sum256(blob)
	digest := "sha256:" + hex.EncodeToString(sum[:])

	only := func(r *replica) { f.edge.Serve([]edge.Endpoint{r.endpoint()}) }
	location := func(resp *http.Response, want int) string {
		t.Helper()
		at, err := resp.Location()
		if err != nil || resp.StatusCode != want || at.Scheme != "https" || at.Host != registryName {
			t.Fatalf("%s: goes on at %v, %v", resp.Status, at, err)
		}
		return at.String()
	}
	only(a)
	at := location(c.call(t, http.MethodPost, "https://"+registryName+"/v2/app/blobs/uploads/", nil,
		"X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "http", "Connection", "X-Forwarded-Host"), http.StatusAccepted)
	at = location(c.call(t, http.MethodPatch, at, blob[:100_000], "Content-Type", "application/octet-stream", "Content-Range", "0-99999"), http.StatusAccepted)
	only(b)
	a.kill()
	at = location(c.call(t, http.MethodPatch, at, blob[100_000:200_000], "Content-Type", "application/octet-stream", "Content-Range", "100000-199999"), http.StatusAccepted)
	location(c.call(t, http.MethodPut, at+"&digest="+digest, blob[200_000:], "Content-Type", "application/octet-stream"), http.StatusCreated)
	resp := c.call(t, http.MethodGet, "https://"+registryName+"/v2/app/blobs/"+digest, nil)
	if got, _ := io.ReadAll(resp.Body); !bytes.Equal(got, blob) {
		t.Errorf("%s: %d bytes came back", resp.Status, len(got))
	}
}

// download gets a blob as Docker does: when it breaks off, it goes on where it was.
func (c client) download(ctx context.Context, url, digest string) (resumed int, err error) {
	hash := sha256.New()
	var at int64
	for ; resumed < 10; resumed++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return resumed, err
		}
		req.SetBasicAuth("ann", "secret")
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
		resp, err := c.RoundTrip(req)
		if err != nil {
			return resumed, err
		}
		if resp.StatusCode != http.StatusPartialContent {
			_ = resp.Body.Close()
			return resumed, fmt.Errorf("from byte %d: %s", at, resp.Status)
		}
		n, err := io.Copy(hash, resp.Body)
		_ = resp.Body.Close()
		at += n
		if err == nil {
			if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != digest {
				return resumed, fmt.Errorf("got %s, want %s", got, digest)
			}
			return resumed, nil
		}
	}
	return resumed, fmt.Errorf("it broke off %d times", resumed)
}

// Replicas are killed with -9, one after the other, under pulls: no pull fails.
// Large blobs that break off go on elsewhere.
func TestReplicasKilledUnderPulls(t *testing.T) {
	ca := registryCA(t, 1)
	f := startFront(t, pairOf(t, ca))
	a, b := startReplicas(t, f)
	c := f.client(t, "ann", "secret", ca)
	image := c.push(t, tag(t, "team/app:v1"), 30_000)
	blob := make([]byte, 16<<20)
	_, _ = rand.Read(blob)
	sum := sha256.Sum256(blob)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	at, err := c.call(t, http.MethodPost, "https://"+registryName+"/v2/big/blobs/uploads/", nil).Location()
	noError(t, err)
	if got := c.call(t, http.MethodPut, at.String()+"&digest="+digest, blob, "Content-Type", "application/octet-stream"); got.StatusCode != http.StatusCreated {
		t.Fatal(got.Status)
	}

	l := newLoad(t)
	once := remote.WithRetryBackoff(remote.Backoff{Steps: 1}) // no second try hides a failure
	for range 2 {
		c := f.client(t, "ann", "secret", ca)
		c.options = append(c.options, once)
		ref := tag(t, "team/app:v1")
		l.repeat(&l.pulls, func() error { return c.tryPull(ref, image) })
		l.repeat(&l.downloads, func() error {
			n, err := c.download(t.Context(), "https://"+registryName+"/v2/big/blobs/"+digest, digest)
			l.resumed.Add(int64(n))
			return err
		})
	}
	const kills = 12
	for i := range kills {
		victim := []*replica{a, b}[i%2]
		victim.kill()
		awaitMore(t, &l.pulls, 3)
		victim.start(t)
		awaitMore(t, &l.downloads, 1)
		awaitHealthy(t, f.edge, victim.id)
	}
	l.end()
	if l.resumed.Load() == 0 {
		t.Error("no kill cut a download: nothing was tried")
	}
	t.Logf("%d replicas killed under %d pulls and %d downloads of 16 MiB: %d failed, %d times a download was resumed", kills, l.pulls.Load(), l.downloads.Load(), l.failed.Load(), l.resumed.Load())
}

// load are clients that repeat what they do until end, or the test's.
type load struct {
	t                                 *testing.T
	clients                           sync.WaitGroup
	ended                             atomic.Bool
	pulls, downloads, failed, resumed atomic.Int64
}

func newLoad(t *testing.T) *load {
	t.Helper()
	l := &load{t: t}
	t.Cleanup(l.end)
	return l
}

// told bounds how many failures are told.
const told = 10

// repeat has one more client, and counts what it does.
func (l *load) repeat(done *atomic.Int64, do func() error) {
	l.clients.Go(func() {
		for !l.ended.Load() {
			if err := do(); err == nil {
				done.Add(1)
			} else if l.failed.Add(1) <= told {
				l.t.Error(err)
			}
		}
	})
}

func (l *load) end() {
	l.ended.Store(true)
	l.clients.Wait()
}

// awaitMore waits until a counter has grown.
func awaitMore(t *testing.T, counter *atomic.Int64, by int64) {
	t.Helper()
	from := counter.Load()
	for deadline := time.Now().Add(time.Minute); counter.Load() < from+by; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing goes on")
		}
	}
}

// awaitHealthy waits until the edge uses a replica again.
func awaitHealthy(t *testing.T, e *edge.Edge, id string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		for _, l := range e.Load() {
			if l.ID == id && l.Problem == "" {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("replica %s is not used again: %v", id, e.Load())
		}
	}
}
