package contract

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
	"github.com/trustcast/trustcast/test/images"
)

// A mirror of another registry of ours signs in there, keeps what was pulled through
// it, and gives that when the other one is gone.
func TestMirrorOfAnotherOfOurs(t *testing.T) {
	peer := open(t, "embedded")
	image, other := peer.push("team/app:v1", 300_000, 2), peer.push("team/app:v2", 1000, 1)
	trustThroughout(t, peer)
	section := fmt.Sprintf("proxy: {remoteurl: 'https://%s', username: %s, password: %s}", peer.domain, user, password)
	s := open(t, "embedded", newNetwork(t, "embedded").with(section))
	s.mirrors(image, other, peer.end)

	// A start that finds the other one gone is a start: only images wait.
	s.end()
	s.startAlone()
	s.until("the operator is told", func() error {
		if problem := s.registry().GetProblem(); !strings.Contains(problem, peer.domain) {
			return errText("the problem is " + problem)
		}
		return nil
	})
	peer.start()
	s.until("the mirror serves again", s.ping)
	must(t, s.pull("team/app:v2", other))
	s.keepsSecret(password)
}

// startAlone is start that does not wait for the registry.
func (s *site) startAlone() {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, s.cfg) }()
	s.end = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			s.t.Errorf("the server: %v", err)
		}
	})
	s.t.Cleanup(s.end)
	s.connect()
	s.until("the server answers operators", func() error {
		_, err := s.admin.GetRegistry(s.t.Context(), &pb.GetRegistryRequest{})
		return err
	})
}

// trustThroughout lets this process trust a registry's CA wherever it says nothing
// else, as SSL_CERT_FILE does for a server.
func trustThroughout(t *testing.T, peer *site) {
	t.Helper()
	was := http.DefaultTransport
	trusting := was.(*http.Transport).Clone()
	trusting.TLSClientConfig = &tls.Config{RootCAs: peer.roots}
	http.DefaultTransport = trusting
	t.Cleanup(func() {
		http.DefaultTransport = was
		trusting.CloseIdleConnections()
	})
}

// mirrors checks a mirror of a registry that has team/app:v1 and v2.
func (s *site) mirrors(image, other v1.Image, peerEnds func()) {
	s.t.Helper()
	must(s.t, s.pull("team/app:v1", image))
	s.want(http.StatusMethodNotAllowed, http.MethodPost, "/v2/team/app/blobs/uploads/", nil) // it takes no pushes
	s.until("what was pulled is kept", func() error {                                        // after the answer
		for _, digest := range blobsOf(s.t, image) {
			if !s.onDisk(digest) {
				return errText(digest + " is not on the disk")
			}
		}
		return nil
	})
	peerEnds()
	must(s.t, s.pull("team/app:v1", image))
	if err := s.pull("team/app:v2", other); err == nil {
		s.t.Error("what was never pulled came from nowhere")
	}
}

// A mirror needs a network; with the docker engine it must be given one, and works
// in it.
func TestMirrorInContainers(t *testing.T) {
	n := newNetwork(t, "docker")
	peer := plainRegistry(n)
	image, other := peer.push("team/app:v1"), peer.push("team/app:v2")
	s := open(t, "docker")
	s.end()
	section := "proxy: {remoteurl: 'http://" + peer.name + ":5000'}"
	cfg := s.cfg
	cfg.Registry.Section = []byte(section)
	for network, want := range map[string]string{
		"":                  "registry.proxy.remoteurl: needs a network, and replicas have none: give one with --registry-network NAME",
		"no-such-" + n.name: "there is no Docker network no-such-" + n.name,
	} {
		cfg.Network = network
		if err := server.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with the network %q: %v, want %q", network, err, want)
		}
	}
	n.with(section)(nil, &s.cfg)
	s.start()
	s.mirrors(image, other, peer.end)
	s.end()
	s.start() // which takes its replicas over
	must(t, s.pull("team/app:v1", image))
}

// plain is a registry as people have run it: a container, without TLS or users.
type plain struct {
	n network
	// name of the container, by which others in the network find it.
	name string
	// address at which this process finds it.
	address string
}

func plainRegistry(n network) plain {
	n.t.Helper()
	p := plain{n: n, name: n.name + "-peer"}
	docker(n.t, "run", "--detach", "--name", p.name, "--network", n.name, images.Registry(n.t))
	n.t.Cleanup(p.end)
	ip := docker(n.t, "inspect", "--format", "{{(index .NetworkSettings.Networks \""+n.name+"\").IPAddress}}", p.name)
	p.address = net.JoinHostPort(ip, "5000")
	return p
}

// end removes it, if it is there.
func (p plain) end() { docker(p.n.t, "rm", "--force", "--volumes", p.name) }

// push makes a random image and pushes it, as soon as the registry takes it.
func (p plain) push(what string) v1.Image {
	p.n.t.Helper()
	image, err := random.Image(100_000, 2)
	must(p.n.t, err)
	ref, err := name.ParseReference(p.address+"/"+what, name.Insecure)
	must(p.n.t, err)
	ctx, cancel := context.WithTimeout(p.n.t.Context(), patience)
	defer cancel()
	for err = remote.Write(ref, image, remote.WithContext(ctx)); err != nil; err = remote.Write(ref, image, remote.WithContext(ctx)) {
		if ctx.Err() != nil {
			p.n.t.Fatal(err)
		}
	}
	return image
}
