package contract

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/test/images"
)

const redisPassword = "the-password-of-redis"

// redis is one that runs for a test.
type redis struct {
	t       *testing.T
	address string
	end     func()
}

func startRedis(n network) redis {
	n.t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		images.Skip(n.t, "needs redis-server, for which Debian has a package")
	}
	lis, err := net.Listen("tcp", net.JoinHostPort(n.host, "0"))
	must(n.t, err)
	r := redis{t: n.t, address: lis.Addr().String()}
	_, number, err := net.SplitHostPort(r.address)
	must(n.t, err)
	must(n.t, lis.Close()) // Redis takes it; nobody else asks for this number so soon
	var said bytes.Buffer
	cmd := exec.Command("redis-server", "--bind", n.host, "--port", number, "--requirepass", redisPassword, "--save", "", "--appendonly", "no", "--dir", n.t.TempDir())
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(n.t, cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // killed
	}()
	r.end = func() {
		_ = cmd.Process.Kill() // or it has ended before
		<-done
	}
	n.t.Cleanup(func() {
		r.end()
		if n.t.Failed() {
			n.t.Logf("Redis said:\n%s", &said)
		}
	})
	return r
}

// blobs counts the blobs that Redis knows of.
func (r redis) blobs() (int, error) {
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nKEYS blobs::sha256:*\r\nQUIT\r\n", redisPassword); err != nil {
		return 0, err
	}
	n, lines := -1, bufio.NewScanner(conn)
	for lines.Scan() {
		if rest, is := strings.CutPrefix(lines.Text(), "*"); is {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				return 0, err
			}
		}
	}
	if n < 0 {
		return 0, errors.New("no answer from Redis")
	}
	return n, lines.Err()
}

// Replicas remember in Redis which blobs there are, and serve without it.
func TestCacheInRedis(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			n := newNetwork(t, engine)
			r := startRedis(n)
			section := readsByReplicas + "\n" + fmt.Sprintf("storage: {cache: {blobdescriptor: redis}}\nredis: {addrs: ['%s'], password: %s, maxretries: 1, dialtimeout: 1s}", r.address, redisPassword)
			s := open(t, engine, n.with(section))
			image := s.push("app:v1", 1000, 3)
			must(t, s.pull("app:v1", image))
			s.until("Redis knows the image's blobs", func() error {
				got, err := r.blobs()
				if want := len(blobsOf(t, image)); err == nil && got != want {
					err = fmt.Errorf("it knows %d, want %d", got, want)
				}
				return err
			})
			// What was collected would be in Redis still, so there is no collection.
			stream, err := s.admin.CollectGarbage(t.Context(), &pb.CollectGarbageRequest{})
			must(t, err)
			if _, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), "leave storage.cache out") {
				t.Errorf("a collection: %v", err)
			}

			r.end()
			must(t, s.pull("app:v1", image))
			must(t, s.pull("app:v2", s.push("app:v2", 1000, 1)))
			s.must("restart", "")
			must(t, s.pull("app:v1", image))
			s.keepsSecret(redisPassword)
		})
	}
}
