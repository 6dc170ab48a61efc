package test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

// registryServer is a whole server over one data directory.
type registryServer struct {
	t    *testing.T
	dir  string
	stop func()
	api  pb.AdminServiceClient
}

// serve starts one until the test ends, or stop is called, and waits until it
// serves.
func serve(t *testing.T, dir string) *registryServer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Config{
			DataDir: dir, RegistryListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", GossipListen: "off", HTTPListen: "off",
			Tick: time.Second, Version: "test",
		})
	}()
	s := &registryServer{t: t, dir: dir}
	s.stop = sync.OnceFunc(func() {
		cancel()
		noError(t, <-ended)
	})
	t.Cleanup(s.stop)
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "state", "admin.sock"))
		}))
	noError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	s.api = pb.NewAdminServiceClient(conn)
	s.until("it serves", func(st *pb.Status) bool { return st.GetRotation().GetFrozen() == "" })
	return s
}

// until waits for a state.
func (s *registryServer) until(what string, ok func(*pb.Status) bool) *pb.Status {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r, err := s.api.GetStatus(s.t.Context(), &pb.GetStatusRequest{}, grpc.WaitForReady(true))
		if err == nil && ok(r.GetStatus()) {
			return r.GetStatus()
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within a minute: %v, %v", what, r, err)
		}
	}
}

// client is one that trusts what hosts shall trust.
func (s *registryServer) client() client {
	s.t.Helper()
	ca, err := s.api.ShowCA(s.t.Context(), &pb.ShowCARequest{})
	noError(s.t, err)
	block, _ := pem.Decode(ca.GetBundlePem())
	cert, err := x509.ParseCertificate(block.Bytes)
	noError(s.t, err)
	f := &front{address: s.until("it has an address", func(*pb.Status) bool { return true }).GetRegistryAddress()}
	return f.client(s.t, "ann", "secret", certs.CA{Cert: cert})
}

// backUp writes a backup into a file.
func (s *registryServer) backUp(file string) {
	s.t.Helper()
	stream, err := s.api.Backup(s.t.Context(), &pb.BackupRequest{})
	noError(s.t, err)
	f, err := os.Create(file)
	noError(s.t, err)
	defer func() { noError(s.t, f.Close()) }()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		noError(s.t, err)
		_, err = f.Write(part.GetChunk())
		noError(s.t, err)
	}
}

// restored is a server on what a backup had.
func restored(t *testing.T, file string) *registryServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "tc") // short: a socket's path has 107 bytes at most
	noError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f, err := os.Open(file)
	noError(t, err)
	defer func() { noError(t, f.Close()) }()
	r, err := server.Restore(t.Context(), server.RestoreConfig{DataDir: dir}, f)
	noError(t, err)
	if fmt.Sprint(r.Users) != "[ann]" || r.Domain != registryName {
		t.Errorf("restored %+v", r)
	}
	return serve(t, dir)
}

func newRegistry(t *testing.T) *registryServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "tc")
	noError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_, err = server.Init(t.Context(), server.InitConfig{DataDir: dir, Domain: registryName, User: "ann", Password: "secret"})
	noError(t, err)
	return serve(t, dir)
}

// pushed is what clients pushed, by reference; guarded by mu.
type pushed struct {
	mu   sync.Mutex
	refs map[string]v1.Hash
}

func (p *pushed) add(ref string, h v1.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refs[ref] = h
}

func (p *pushed) copy() map[string]v1.Hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]v1.Hash{}
	for ref, h := range p.refs {
		out[ref] = h
	}
	return out
}

// push pushes images, and now and then an index, until ctx ends. Each has a tag of its
// own; one tag moves. A push that ctx cuts is none.
func (p *pushed) push(ctx context.Context, t *testing.T, c client, who int) error {
	options := append(append([]remote.Option(nil), c.options...), remote.WithContext(ctx))
	for i := 0; ctx.Err() == nil; i++ {
		ref := tag(t, fmt.Sprintf("team-%d/app:v%d", who, i))
		var h v1.Hash
		var err error
		if i%5 == 4 {
			var index v1.ImageIndex
			if index, err = random.Index(20_000, 2, 3); err == nil {
				h, err = index.Digest()
				err = errors.Join(err, remote.WriteIndex(ref, index, options...))
			}
		} else {
			var image v1.Image
			if image, err = random.Image(100_000, 3); err == nil {
				h, err = image.Digest()
				err = errors.Join(err, remote.Write(ref, image, options...), remote.Tag(ref.Context().Tag("latest"), image, options...))
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was cut
		case err != nil:
			return fmt.Errorf("push %s: %w", ref, err)
		}
		p.add(ref.String(), h)
	}
	return nil
}

// pullAll pulls all that a registry has, by tag and by digest, and returns each
// digest by reference.
func pullAll(t *testing.T, c client) map[string]v1.Hash {
	t.Helper()
	all := map[string]v1.Hash{}
	reg, err := name.NewRegistry(registryName)
	noError(t, err)
	repos, err := remote.Catalog(t.Context(), reg, c.options...)
	noError(t, err)
	for _, repo := range repos {
		tags, err := remote.List(reg.Repo(repo), c.options...)
		noError(t, err)
		for _, tg := range tags {
			ref := reg.Repo(repo).Tag(tg)
			d, err := remote.Get(ref, c.options...)
			noError(t, err)
			all[ref.String()] = d.Digest
			pullDigest(t, c, reg.Repo(repo).Digest(d.Digest.String()))
		}
	}
	return all
}

func pullDigest(t *testing.T, c client, ref name.Digest) {
	t.Helper()
	d, err := remote.Get(ref, c.options...)
	noError(t, err)
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		noError(t, err)
		m, err := index.IndexManifest()
		noError(t, err)
		for _, child := range m.Manifests {
			pullDigest(t, c, ref.Context().Digest(child.Digest.String()))
		}
		return
	}
	image, err := d.Image()
	noError(t, err)
	_, err = image.RawConfigFile()
	noError(t, err)
	layers, err := image.Layers()
	noError(t, err)
	for _, layer := range layers {
		r, err := layer.Compressed()
		noError(t, err)
		_, err = io.Copy(io.Discard, r) // which checks the digest
		noError(t, errors.Join(err, r.Close()))
	}
}

// TestBackupDuringPushes: of each backup that is made while real clients push, all can
// be pulled, and it has whatever was pushed before it began.
func TestBackupDuringPushes(t *testing.T) {
	const pushers, backups = 3, 3
	s := newRegistry(t)
	c := s.client()
	p := &pushed{refs: map[string]v1.Hash{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make([]error, pushers)
	for who := range pushers {
		wg.Go(func() { errs[who] = p.push(ctx, t, c, who) })
	}
	files, before := make([]string, backups), make([]map[string]v1.Hash, backups)
	for i := range backups {
		for least := 5 * (i + 1); len(p.copy()) < least && t.Context().Err() == nil; {
			time.Sleep(10 * time.Millisecond) // a condition: enough is there
		}
		before[i], files[i] = p.copy(), filepath.Join(t.TempDir(), "b.tar")
		s.backUp(files[i])
	}
	cancel()
	wg.Wait()
	noError(t, errors.Join(errs...))
	after := p.copy()
	for i, file := range files {
		r := restored(t, file)
		got := pullAll(t, r.client())
		for ref, h := range before[i] {
			if got[ref] != h {
				t.Errorf("backup %d: %s is %s, pushed was %s", i, ref, got[ref], h)
			}
		}
		for ref, h := range got {
			if !strings.HasSuffix(ref, ":latest") && after[ref] != h && after[ref] != (v1.Hash{}) {
				t.Errorf("backup %d: %s is %s, pushed was %s", i, ref, h, after[ref])
			}
		}
		info, err := os.Stat(file)
		noError(t, err)
		t.Logf("backup %d: %d tags pushed before it, %d in it, all pulled; %d in the end; %d KiB", i, len(before[i]), len(got), len(after), info.Size()>>10)
		r.stop()
	}
}

// TestNewestBackup: status says whether it has the active CA's key.
func TestNewestBackup(t *testing.T) {
	s := newRegistry(t)
	lacks := func(want string) func(*pb.Status) bool {
		return func(st *pb.Status) bool {
			return want == "" && st.GetBackupLacks() == "" || want != "" && strings.Contains(st.GetBackupLacks(), want)
		}
	}
	s.until("it says that there is none", lacks("there is no backup"))
	file := filepath.Join(t.TempDir(), "b.tar")
	s.backUp(file)
	s.until("a backup is known", lacks(""))
	_, err := s.api.RotateCA(t.Context(), &pb.RotateCARequest{})
	noError(t, err)
	s.until("the backup is too old", lacks("older than the active CA"))
	s.until("the rotation ends", func(st *pb.Status) bool { return st.GetRotation().GetPhase() == "idle" })
	s.backUp(file)
	st := s.until("the newer backup has it", lacks(""))
	if len(st.GetWarnings()) != 0 {
		t.Errorf("warnings %v", st.GetWarnings())
	}
	r := restored(t, file) // knows itself as the newest
	if got := r.until("restored", lacks("")); got.GetGeneration() <= st.GetGeneration() || got.GetFleetId() != st.GetFleetId() {
		t.Errorf("generation %d after %d, fleet %s after %s", got.GetGeneration(), st.GetGeneration(), got.GetFleetId(), st.GetFleetId())
	}
}

// TestRestoreRefuses: a directory in use, one that is not empty, a bad backup; nothing
// changes.
func TestRestoreRefuses(t *testing.T) {
	s := newRegistry(t)
	file := filepath.Join(t.TempDir(), "b.tar")
	s.backUp(file)
	data, err := os.ReadFile(file)
	noError(t, err)
	refuses := func(what, want, dir string, force bool, data []byte) {
		t.Helper()
		before := listing(t, dir)
		_, err := server.Restore(t.Context(), server.RestoreConfig{DataDir: dir, Force: force}, bytes.NewReader(data))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%s: before\n%safter\n%s", what, before, after)
		}
	}
	refuses("a running server", "stop it first, restore, then start it again", s.dir, true, data)
	s.stop()
	refuses("not empty", "is not empty", s.dir, false, data)
	refuses("cut off", "cut off", s.dir, true, data[:len(data)/2])
	refuses("no tar", "it is no tar", s.dir, true, []byte(strings.Repeat("hello ", 1000)))
	refuses("another key", "is damaged", s.dir, true, bytes.ReplaceAll(data, []byte("BEGIN PRIVATE KEY"), []byte("BEGIN PRIVATE KEX")))
	empty := t.TempDir()
	refuses("cut off, into an empty one", "cut off", empty, false, data[:len(data)/2])
}

// listing is every file of a directory, with its content.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	noError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&out, "%s %d %x\n", path, len(data), certs.FingerprintOf(&x509.Certificate{Raw: data})[:16])
		return err
	}))
	return out.String()
}

// TestRestoreOverImages: a backup that has no images leaves those that are there; one
// of a registry without images replaces them by none.
func TestRestoreOverImages(t *testing.T) {
	s := newRegistry(t)
	empty := filepath.Join(t.TempDir(), "b.tar")
	s.backUp(empty)
	ref := tag(t, "team/app:v1")
	image := s.client().push(t, ref, 50_000)
	s.stop()
	var small bytes.Buffer
	noError(t, server.BackUp(t.Context(), server.BackupConfig{DataDir: s.dir, WithoutImages: true}, &small))
	r, err := server.Restore(t.Context(), server.RestoreConfig{DataDir: s.dir, Force: true}, &small)
	noError(t, err)
	if !r.KeptImages || !r.WithoutImages {
		t.Errorf("restored %+v", r)
	}
	again := serve(t, s.dir)
	again.client().pull(t, ref, image)
	again.stop()

	f, err := os.Open(empty)
	noError(t, err)
	defer func() { noError(t, f.Close()) }()
	_, err = server.Restore(t.Context(), server.RestoreConfig{DataDir: s.dir, Force: true}, f)
	noError(t, err)
	_, err = remote.Image(ref, serve(t, s.dir).client().options...)
	refusedWith(t, err, http.StatusNotFound)
}
