//go:build linux

package fleet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// madeEtcDocker marks in the run's directory that /etc/docker was made to
	// be bound over.
	madeEtcDocker = "made-etc-docker"
	// pullBound is far above the second or so that a pull takes here.
	pullBound = 90 * time.Second
	// largeBound is for what packs or unpacks hundreds of megabytes, and for pushes that
	// Docker tries five times: its pauses alone are 50 s.
	largeBound = 6 * time.Minute
)

// host is a Docker host: a network namespace with a Docker engine, and an agent
// in the engine's mount namespace, where /etc/docker and /etc/hosts are its own.
type host struct {
	net  *network
	name string
	addr string
	dir  string

	flags    []string // more of dockerd's
	env      []string // more of dockerd's
	private  []string // paths below / of which it has its own, in dir
	runtimes string   // of its agent
	engine   *process // nil: stopped
	agent    *process // nil: stopped
}

// newHost makes the host's namespace and files; number counts from 1.
func newHost(n *network, number int, hosts string) (*host, error) {
	name := "h" + strconv.Itoa(number)
	h := &host{net: n, name: name, runtimes: "docker", addr: n.run.addr(hostAddr + number), dir: n.run.path(name)}
	if err := n.add(name, h.addr); err != nil {
		return nil, err
	}
	for _, dir := range []string{h.certsDir(), h.path("client"), h.path("agent")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(h.path("hosts"), []byte(hosts), 0o644); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *host) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir}, elem...)...)
}

// certsDir is what the host sees as /etc/docker/certs.d.
func (h *host) certsDir() string { return h.path("etc-docker", "certs.d") }
func (h *host) certFile() string { return filepath.Join(h.certsDir(), domain, "ca.crt") }
func (h *host) socket() string   { return "unix://" + h.path("docker.sock") }

// startEngine starts the host's dockerd and waits until it answers.
func (h *host) startEngine() error {
	run := h.net.run
	// Plain exec after the mounts, so that the process is dockerd itself. A
	// system containerd is hidden: dockerd would share it if it saw it. What hides
	// it has the sockets of containers, which the engine's next life looks for.
	script := `set -e
if [ -e "$1/before.sh" ]; then . "$1/before.sh"; fi
mount --bind "$1/etc-docker" /etc/docker
mount --bind "$1/hosts" /etc/hosts
for path in $PRIVATE; do mount --bind "$1/$path" "/$path"; done
mkdir -p "$1/run-containerd"
if [ -d /run/containerd ]; then mount --bind "$1/run-containerd" /run/containerd; fi
shift; exec "$@"`
	argv := []string{
		"nsenter", "--net=/run/netns/" + h.net.namespace(h.name),
		"unshare", "--mount", "--propagation", "private",
		"sh", "-c", script, "sh", h.dir,
		"dockerd", "--host", h.socket(), "--data-root", h.path("data"), "--exec-root", h.path("exec"), "--pidfile", h.path("docker.pid"),
		// vfs works on every kernel, and the image is small.
		"--storage-driver", "vfs",
		// By this the reaper knows containers, which do not inherit the run's mark.
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/" + run.name(),
		"--bridge=none", "--iptables=false", "--ip6tables=false",
	}
	env := append([]string{"PRIVATE=" + strings.Join(h.private, " ")}, h.env...)
	p, err := run.start(h.name+"-dockerd", env, append(argv, h.flags...)...)
	if err != nil {
		return err
	}
	h.engine = p
	return until(60*time.Second, "dockerd of "+h.name, func() (bool, string) {
		_, err := h.docker("version")
		return err == nil, fmt.Sprint(err, "\n", tail(p.log, 10))
	})
}

func (h *host) stopEngine() error {
	if h.engine == nil {
		return nil
	}
	p := h.engine
	h.engine = nil
	return p.terminate()
}

// docker runs the client against the host's engine.
func (h *host) docker(args ...string) (string, error) { return h.dockerInput("", args...) }

func (h *host) dockerInput(stdin string, args ...string) (string, error) {
	return h.dockerWithin(pullBound, stdin, args...)
}

func (h *host) dockerWithin(bound time.Duration, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	argv := append([]string{"docker", "--config", h.path("client"), "--host", h.socket()}, args...)
	return h.net.run.output(ctx, nil, stdin, argv...)
}

// login signs in at the registry; docker remembers the password for the pulls.
func (h *host) login(registry, user, password string) error {
	_, err := h.dockerInput(password, "login", "--username", user, "--password-stdin", registry)
	return err
}

// pull fetches every layer of an image: what the engine has of it goes first.
func (h *host) pull(image string) error {
	if err := h.forget(image); err != nil {
		return err
	}
	return h.fetch(image)
}

// forget removes an image that the engine may have.
func (h *host) forget(image string) error {
	_, err := h.docker("image", "rm", "--force", image)
	if err != nil && !strings.Contains(err.Error(), "No such image") {
		return err
	}
	return nil
}

// fetch pulls what the engine does not have of an image.
func (h *host) fetch(image string) error {
	_, err := h.docker("pull", "--quiet", image)
	return err
}

// fetchLarge is fetch for an image that takes its time.
func (h *host) fetchLarge(image string) error {
	_, err := h.dockerWithin(largeBound, "", "pull", "--quiet", image)
	return err
}

// push loads the image's archive, gives it a name and pushes it.
func (h *host) push(archive, loaded, image string) error {
	for _, args := range [][]string{
		{"load", "--quiet", "--input", archive},
		{"tag", loaded, image},
		{"push", "--quiet", image},
	} {
		if _, err := h.docker(args...); err != nil {
			return err
		}
	}
	return nil
}

// enter is the start of a command line that runs in the host's namespaces.
func (h *host) enter() []string {
	return []string{"nsenter", "--target", strconv.Itoa(h.engine.cmd.Process.Pid), "--net", "--mount"}
}

// agentCommand runs trustcast-agent on the host to its end.
func (h *host) agentCommand(verb string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return h.net.run.output(ctx, h.agentEnv(), "", h.agentArgs(verb, args...)...)
}

// agentEnv keeps the agent, which sees most of the machine's files, to its own.
func (h *host) agentEnv(more ...string) []string {
	return append([]string{"TRUSTCAST_RUNTIMES=" + h.runtimes}, more...)
}

func (h *host) agentArgs(verb string, args ...string) []string {
	argv := append(h.enter(), h.net.run.path("bin", "trustcast-agent"), verb, "--data-dir", h.path("agent"))
	return append(argv, args...)
}

// startAgent runs the agent, with its default certificate directory.
func (h *host) startAgent(args ...string) error {
	return h.runAgent("trustcast-agent", nil, args...)
}

// runAgent is startAgent with one of the two agents, and environment. binary is
// "trustcast-agent" or "trustcast-agent-faults".
func (h *host) runAgent(binary string, env []string, args ...string) error {
	argv := append(h.enter(), h.net.run.path("bin", binary), "run", "--data-dir", h.path("agent"), "--gossip-listen", h.addr+":"+gossipPort)
	p, err := h.net.run.start(h.name+"-agent", h.agentEnv(env...), append(argv, args...)...)
	if err != nil {
		return err
	}
	h.agent = p
	return nil
}

// stopAgent ends the agent with a signal and waits for it.
func (h *host) stopAgent(s syscall.Signal) error {
	if h.agent == nil {
		return nil
	}
	p := h.agent
	h.agent = nil
	if s == syscall.SIGKILL {
		p.kill()
		return nil
	}
	return p.terminate()
}

// tree describes every file below certs.d, with its content.
func (h *host) tree() (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(h.certsDir(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		entry := info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			entry += "\n" + string(data)
		}
		files[strings.TrimPrefix(path, h.certsDir())] = entry
		return nil
	})
	return files, err
}
