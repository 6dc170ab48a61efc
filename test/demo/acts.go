package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/trustcast/trustcast/test/ports"
)

const user = "demo"

// around is how many pulls each host makes before and after the rotation, so
// that it happens in the middle of them.
const around = 5

// startRegistry makes a registry and runs it.
func (s *stage) startRegistry(ctx context.Context) error {
	address, err := ports.Free("127.0.0.1") // it is part of the registry's name
	if err != nil {
		return err
	}
	s.domain, s.password = strings.Replace(address, "127.0.0.1", "localhost", 1), rand.Text()
	s.title("A registry with its own CA:\n   trustcast server --init --domain %s --user %s", s.domain, user)
	server, err := s.start("trustcast", s.password+"\n", "server", "--init", "--domain", s.domain, "--user", user, "--password-stdin",
		"--data-dir", s.serverDir(), "--listen", address, "--tick", "1s",
		"--grpc-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--http-listen", "off")
	if err != nil {
		return err
	}
	if s.agents, err = server.awaitLog(ctx, `msg=listening what=grpc address=(\S+)`); err != nil {
		return err
	}
	if _, err := server.awaitLog(ctx, `msg=serving`); err != nil {
		return err
	}
	s.say("   it serves after %s: images on %s, agents on %s", since(s.began), s.domain, s.agents)
	return nil
}

// pullWithoutCA is the negative control: without an agent nothing works.
func (s *stage) pullWithoutCA(ctx context.Context) error {
	s.title("Nobody trusts it yet:\n   docker pull %s/hello:1", s.domain)
	c, err := s.client()
	if err != nil {
		return err
	}
	var refused x509.UnknownAuthorityError
	for _, roots := range []*x509.CertPool{nil, x509.NewCertPool()} { // the system's CAs, and none
		err := c.pull(ctx, roots)
		if refused = (x509.UnknownAuthorityError{}); !errors.As(err, &refused) {
			return fmt.Errorf("a pull without the CA must fail with x509, not with: %w", err)
		}
	}
	s.say("   refused, as it must be: %v", refused)
	return nil
}

// joinHosts starts the agents and waits until every host is trusted.
func (s *stage) joinHosts(ctx context.Context) error {
	token, err := s.trustcast(ctx, "token", "create", "-q")
	if err != nil {
		return err
	}
	s.title("%d hosts join, each with one line:\n   trustcast-agent run --join %s --token %.20s…", hosts, s.agents, token)
	began := time.Now()
	var started []*process
	for i := range hosts {
		p, err := s.start("trustcast-agent", token, "run", "--join", s.agents, "--token-file", "-", "--name", hostName(i),
			"--data-dir", fmt.Sprintf("%s/%s/agent", s.dir, hostName(i)), "--docker-certs-dir", s.certsDir(i), "--gossip-listen", "127.0.0.1:0")
		if err != nil {
			return err
		}
		started = append(started, p)
	}
	for i, p := range started {
		if err := s.awaitFile(ctx, p, s.installed(i)); err != nil {
			return err
		}
	}
	s.say("   the CA is installed on all of them after %s", since(began))
	for {
		list, err := s.trustcast(ctx, "host", "ls")
		if err != nil {
			return err
		}
		if strings.Count(list, " trusted ") == hosts {
			break
		}
	}
	s.say("   all of them have proved after %s that they trust what is served", since(began))
	return nil
}

// awaitFile waits for a file that the program makes.
func (s *stage) awaitFile(ctx context.Context, p *process, path string) error {
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("an agent ended:\n%s", p.log)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// pushAndPull pushes a random image from the first host and pulls it on each.
func (s *stage) pushAndPull(ctx context.Context) error {
	s.title("The same pull, trusting only what the agent installed:\n   docker push, then docker pull %s/hello:1 on every host", s.domain)
	img, err := random.Image(64<<10, 3)
	if err != nil {
		return err
	}
	roots, err := caFile(s.installed(0))
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.push(ctx, roots, img); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	s.say("   pushed %s in %s", digest(img), since(began))
	return s.pullEverywhere(ctx)
}

func digest(img v1.Image) string {
	d, err := img.Digest()
	if err != nil {
		return "an image"
	}
	return d.String()[:19] + "…"
}

// pullEverywhere pulls once on each host.
func (s *stage) pullEverywhere(ctx context.Context) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	for i := range hosts {
		if err := s.pull(ctx, c, s.installed(i)); err != nil {
			return fmt.Errorf("pull on %s: %w", hostName(i), err)
		}
	}
	s.say("   pulled on %d hosts", hosts)
	return nil
}

func (s *stage) pull(ctx context.Context, c client, ca string) error {
	s.counts.pulls++
	roots, err := caFile(ca)
	if err == nil {
		err = c.pull(ctx, roots)
	}
	if err != nil {
		s.counts.failed++
	}
	return err
}

// rotate replaces the CA while every host pulls all the time.
func (s *stage) rotate(ctx context.Context) error {
	s.title("A new CA, while every host pulls in a loop:\n   trustcast ca rotate --wait")
	if err := s.keepOldCA(); err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	loop := s.startPulling(ctx, c)
	if err = loop.pullsOnEach(ctx, around); err == nil {
		err = s.stream(ctx, &indented{out: s.out}, "ca", "rotate", "--wait", "--yes")
	}
	if err == nil {
		err = loop.pullsOnEach(ctx, around)
	}
	pulls, failures := loop.stop()
	s.counts.pulls += pulls
	s.counts.failed += len(failures)
	if err := errors.Join(append(failures, err)...); err != nil {
		return err
	}
	s.counts.rotations++
	s.say("   pulls meanwhile: %d, failed: %d", pulls, len(failures))
	return nil
}

func (s *stage) oldCA() string { return s.dir + "/old-ca.crt" }

// keepOldCA keeps what a host has that sleeps through the rotation.
func (s *stage) keepOldCA() error {
	pem, err := os.ReadFile(s.installed(0))
	if err != nil {
		return err
	}
	return os.WriteFile(s.oldCA(), pem, 0o600)
}

// pullAgain pulls with the new CA on each host, and with the old one alone.
func (s *stage) pullAgain(ctx context.Context) error {
	s.title("Every host has the new CA alone now, and pulls again")
	old, err := os.ReadFile(s.oldCA())
	if err != nil {
		return err
	}
	for i := range hosts {
		now, err := os.ReadFile(s.installed(i))
		if err != nil {
			return err
		}
		if string(now) == string(old) {
			return fmt.Errorf("%s still has the old CA", hostName(i))
		}
	}
	if err := s.pullEverywhere(ctx); err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	if err := s.pull(ctx, c, s.oldCA()); err != nil {
		return fmt.Errorf("pull with the old CA: %w", err)
	}
	s.say("   pulled with the old CA alone too: a host that sleeps through a rotation is not locked out")
	return nil
}

func (s *stage) summary(context.Context) error {
	s.say("\nDone in %s: %d hosts, %d rotation, %d pulls, %d failed. Everything is removed again.", since(s.began), hosts, s.counts.rotations, s.counts.pulls, s.counts.failed)
	s.say(`
For real, as root. On the machine of the registry:
   bin/trustcast server --init --domain registry.example.com --user ci
   bin/trustcast token create
On each Docker host, the line that it printed, as a service:
   bin/trustcast-agent run --join registry.example.com:7443 --token tc1.…`)
	return nil
}

func since(t time.Time) string { return fmt.Sprintf("%.2fs", time.Since(t).Seconds()) }
