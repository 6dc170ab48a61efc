//go:build linux

package fleet_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	domain       = "registry.test:5000"
	registryPort = "5000"
	grpcPort     = "7443"
	gossipPort   = "7947"
	httpPort     = "7480"
)

// ports of a server.
type ports struct{ registry, grpc, gossip, http string }

// server is trustcast in a namespace of its own, and the operator's command.
type server struct {
	net     *network
	name    string // of its log
	dataDir string
	ports   ports
	proc    *process // nil: stopped
	started time.Time
}

func newServer(n *network) (*server, error) {
	if err := n.add("server", n.run.addr(serverAddr)); err != nil {
		return nil, err
	}
	return &server{net: n, name: "server", dataDir: n.run.path("data"), ports: ports{registryPort, grpcPort, gossipPort, httpPort}}, nil
}

func (s *server) listen(port string) string { return s.net.run.addr(serverAddr) + ":" + port }

// log is the file that has all that the server ever printed.
func (s *server) log() string { return s.net.run.path(s.name + ".log") }

// start runs the server and waits until it is ready. binary is "trustcast" or
// "trustcast-faults".
func (s *server) start(binary string, env []string, args ...string) error {
	argv := append([]string{
		"nsenter", "--net=/run/netns/" + s.net.namespace("server"),
		s.net.run.path("bin", binary), "server", "--data-dir", s.dataDir,
		"--listen", s.listen(s.ports.registry), "--grpc-listen", s.listen(s.ports.grpc), "--gossip-listen", s.listen(s.ports.gossip),
		"--http-listen", s.listen(s.ports.http), "--advertise", "registry.test:" + s.ports.grpc, "--tick", "2s",
	}, args...)
	s.started = time.Now()
	p, err := s.net.run.start(s.name, env, argv...)
	if err != nil {
		return err
	}
	s.proc = p
	return until(2*time.Minute, "server ready", func() (bool, string) {
		if !p.running() {
			return true, ""
		}
		resp, err := http.Get("http://" + s.listen(s.ports.http) + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
}

func (s *server) stop() error {
	if s.proc == nil {
		return nil
	}
	p := s.proc
	s.proc = nil
	return p.terminate()
}

// kill is kill -9.
func (s *server) kill() {
	s.proc.kill()
	s.proc = nil
}

// command runs the operator's command and returns what it printed to stdout.
func (s *server) command(args ...string) (string, error) { return s.commandInput("", args...) }

func (s *server) commandInput(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv := append([]string{s.net.run.path("bin", "trustcast")}, args...)
	return s.net.run.output(ctx, nil, stdin, append(argv, "--data-dir", s.dataDir)...)
}

// json runs a command that prints data and reads it into v.
func (s *server) json(v any, args ...string) error {
	out, err := s.command(append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// status is the part of `trustcast status -o json` that the tests look at.
type status struct {
	Generation  json.Number
	Fingerprint string
	Serving     struct {
		Issuer       string
		LeafNotAfter time.Time `json:"leaf_not_after"`
		Predecessors int
	}
	Rotation struct {
		Phase      string
		Number     json.Number
		WaitingFor []struct{ Host, Reason string } `json:"waiting_for"`
	}
	Hosts []hostStatus
}

type hostStatus struct {
	Name, State string
	Generation  json.Number
	Fingerprint string
	Gossip      string
	Problem     string
	LastSeen    time.Time `json:"last_seen"`
}

func (s *server) status() (status, error) {
	out, err := s.command("status", "-o", "json")
	// 3 says that the state is bad, which is what some tests wait for.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		return status{}, err
	}
	var st status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return status{}, fmt.Errorf("status -o json: %w: %s", err, out)
	}
	return st, nil
}

func (st status) host(name string) hostStatus {
	for _, h := range st.Hosts {
		if h.Name == name {
			return h
		}
	}
	return hostStatus{Name: name, State: "absent"}
}

func (st status) waitsFor(name string) bool {
	for _, w := range st.Rotation.WaitingFor {
		if w.Host == name {
			return true
		}
	}
	return false
}

// why a host is waited for, or "".
func (st status) why(name string) string {
	for _, w := range st.Rotation.WaitingFor {
		if w.Host == name {
			return w.Reason
		}
	}
	return ""
}

// number of the last rotation, 0 before the first.
func (st status) number() int {
	n, _ := strconv.Atoi(st.Rotation.Number.String())
	return n
}

// wait polls the status until cond holds.
func (s *server) wait(bound time.Duration, what string, cond func(status) bool) error {
	return until(bound, what, func() (bool, string) {
		st, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		seen, _ := json.Marshal(st)
		return cond(st), string(seen)
	})
}

// phaseTime finds when a rotation reached a phase: the time of the log line.
func (s *server) phaseTime(rotation int, phase string) (time.Time, error) {
	f, err := os.Open(s.log())
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := " " + lines.Text() + " "
		if !strings.Contains(words, " msg=rotation ") && !strings.Contains(words, ` msg="rotation" `) {
			continue
		}
		if !strings.Contains(words, " phase="+phase+" ") || !strings.Contains(words, fmt.Sprintf(" rotation=%d ", rotation)) {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "time="), " ")
		return time.Parse(time.RFC3339, stamp)
	}
	return time.Time{}, fmt.Errorf("the server's log has no line for rotation %d phase %s", rotation, phase)
}

// readByReplicas is an environment in which replicas answer what else is answered from
// the registry's files: they look after their health, and refuse when it fails. (A log
// of requests would do, too, and would stand still, with them, while the engine that
// takes it is away.)
func readByReplicas(env []string) []string {
	return append(slices.Clone(env), "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED=true")
}

// blobGets is how many blob GETs the edge has answered well since it started.
func (s *server) blobGets() (int, error) {
	n, _, err := s.metric(func(series string) bool { // which is not there before the first
		return strings.HasPrefix(series, "trustcast_edge_requests_total{") && strings.Contains(series, `route="blob"`) &&
			strings.Contains(series, `method="GET"`) && strings.Contains(series, `code="2`)
	})
	return n, err
}

// directly is how many reads no replica was asked for.
func (s *server) directly() (int, error) {
	n, there, err := s.metric(func(series string) bool { return series == "trustcast_edge_direct_total" })
	if err == nil && !there {
		err = errors.New("the server does not count its direct reads")
	}
	return n, err
}

// metric is the sum of the series that count, if there are any.
func (s *server) metric(counts func(series string) bool) (total int, found bool, err error) {
	resp, err := http.Get("http://" + s.listen(s.ports.http) + "/metrics")
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		at := strings.LastIndexByte(lines.Text(), ' ')
		if at < 0 || !counts(lines.Text()[:at]) {
			continue
		}
		v, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			return 0, false, err
		}
		total, found = total+int(v), true
	}
	return total, found, lines.Err()
}
