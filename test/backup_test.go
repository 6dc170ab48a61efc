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

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
)

// registryServer is a whole server over one data directory.
type registryServer struct {
	t    *testing.T
	dir  string
	stop func()
	api  pb.AdminServiceClient
}

// serve starts one until the test ends, or stop is called, and waits until it
// serves. image is of the docker engine's replicas, which answer reads, too, since they
// log them: else these would come from the files, whoever can read those. None: the
// engine is embedded.
func serve(t *testing.T, dir string, image ...string) *registryServer {
	t.Helper()
	cfg := server.Config{
		DataDir: dir, RegistryListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", GossipListen: "off", HTTPListen: "off",
		Tick: time.Second, Version: "test",
	}
	if len(image) > 0 {
		cfg.Image, cfg.Replicas = image[0], 2
		cfg.Registry.Section = []byte("log: {level: info}")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, cfg) }()
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
	s.until("it serves", func(st *pb.Status) bool { return st.GetRotation().GetFrozen() == "" && s.whole() })
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

// whole says whether all replicas that are wanted are there.
func (s *registryServer) whole() bool {
	r, err := s.api.GetRegistry(s.t.Context(), &pb.GetRegistryRequest{})
	return err == nil && len(r.GetReplicas()) == int(r.GetWanted())
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

// backUp writes a backup into a file. Between calls of underWay, which may wait, the
// server can send no more than the stream has room for.
func (s *registryServer) backUp(file string, underWay ...func()) {
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
		for _, wait := range underWay {
			wait()
		}
	}
}

// restored is a server on what a backup had.
func restored(t *testing.T, file string) *registryServer {
	t.Helper()
	dir := dataDir(t)
	restore(t, server.RestoreConfig{DataDir: dir}, file)
	return serve(t, dir)
}

// restore puts a backup of a registry of these tests into a directory.
func restore(t *testing.T, cfg server.RestoreConfig, file string) {
	t.Helper()
	f, err := os.Open(file)
	noError(t, err)
	defer func() { noError(t, f.Close()) }()
	r, err := server.Restore(t.Context(), cfg, f)
	noError(t, err)
	if fmt.Sprint(r.Users) != "[ann]" || r.Domain != registryName {
		t.Errorf("restored %+v", r)
	}
}

// dataDir is a directory for a server that is not there yet; it is gone after the
// test.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tc") // short: a socket's path has 107 bytes at most
	noError(t, err)
	t.Cleanup(func() { noError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "data")
}

func newRegistry(t *testing.T) *registryServer {
	t.Helper()
	dir := dataDir(t)
	initialize(t, server.InitConfig{DataDir: dir})
	return serve(t, dir)
}

// initialize makes the registry of these tests.
func initialize(t *testing.T, cfg server.InitConfig) {
	t.Helper()
	cfg.Domain, cfg.User, cfg.Password = registryName, "ann", "secret"
	_, err := server.Init(t.Context(), cfg)
	noError(t, err)
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

// upgraded writes into the records of a stopped server that the registry's image was
// upgraded.
func upgraded(t *testing.T, dir, image string) {
	t.Helper()
	store, err := records.Open(filepath.Join(dir, "state", "records"))
	noError(t, err)
	rec := map[string]any{}
	rev, err := store.Get("registry", &rec)
	noError(t, err)
	rec["image"], rec["from"] = image, registry.DefaultImage
	_, err = store.Put("registry", rev, rec)
	noError(t, err)
	if kept, err := server.ReadKept(dir, ""); err != nil || kept.Upgraded != image {
		t.Fatalf("the image is %q (%v)", kept.Upgraded, err)
	}
}

// TestRestoreOverImages: a backup that has no images leaves those that are there; one
// of a registry without images replaces them by none. Neither chooses what image the
// registry runs.
func TestRestoreOverImages(t *testing.T) {
	s := newRegistry(t)
	empty := filepath.Join(t.TempDir(), "b.tar")
	s.backUp(empty)
	ref := tag(t, "team/app:v1")
	image := s.client().push(t, ref, 50_000)
	s.stop()
	upgraded(t, s.dir, "registry:evil")
	var small bytes.Buffer
	noError(t, server.BackUp(t.Context(), server.BackupConfig{DataDir: s.dir, WithoutImages: true}, &small))
	r, err := server.Restore(t.Context(), server.RestoreConfig{DataDir: s.dir, Force: true}, &small)
	noError(t, err)
	if !r.KeptImages || !r.WithoutImages {
		t.Errorf("restored %+v", r)
	}
	if kept, err := server.ReadKept(s.dir, ""); err != nil || kept.Upgraded != "" {
		t.Errorf("the backup has chosen the image %q (%v)", kept.Upgraded, err)
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
