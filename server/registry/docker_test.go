package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trustcast/trustcast/test/images"
)

// docker runs the client, against the machine's engine unless -H is among args.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(stdout.String())
}

// stand is a volume and what a test's engine needs besides; all of it goes with the
// test, and that nothing else is left is checked.
type stand struct {
	cfg DockerConfig
	log *bytes.Buffer
}

func newStand(t *testing.T, image string) *stand {
	t.Helper()
	images.Docker(t)
	name := strings.ToLower(fmt.Sprintf("tct-%d-%s", os.Getpid(), newReplicaID()))
	domain := name + ".test:5000"
	root, err := DockerVolume(t.Context(), "", name, domain)
	t.Cleanup(func() {
		left := strings.Fields(docker(t, "ps", "--all", "--quiet", "--filter", "label="+domainLabel+"="+domain))
		for _, id := range left {
			docker(t, "rm", "--force", "--volumes", id)
		}
		if len(left) > 0 && !t.Failed() {
			t.Errorf("%d containers were left", len(left))
		}
		docker(t, "volume", "rm", "--force", name)
	})
	must(t, err)
	for _, dir := range masked {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	}
	s := &stand{log: &bytes.Buffer{}}
	s.cfg = DockerConfig{Domain: domain, Fleet: "fleet", Volume: name, Root: root, Image: image, HTTPSecret: "secret", Host: ""}
	return s
}

func (s *stand) engine(t *testing.T) *Docker {
	t.Helper()
	d, err := NewDocker(t.Context(), s.cfg)
	must(t, err)
	t.Cleanup(func() { _ = d.api.Close() })
	return d
}

// open starts a replica that goes with the test.
func open(t *testing.T, d *Docker) Endpoint {
	t.Helper()
	e, err := d.Open(t.Context(), "")
	must(t, err)
	t.Cleanup(func() { must(t, d.Close(context.WithoutCancel(t.Context()), e.ID)) })
	return e
}

// overSocket hands requests to a replica.
type overSocket struct{ transport *http.Transport }

func over(t *testing.T, e Endpoint) overSocket {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return overSocket{transport}
}

func (o overSocket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.RequestURI = "http", "replica", ""
	resp, err := o.transport.RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(body)
}

func TestDockerReplica(t *testing.T) {
	for name, image := range map[string]func(testing.TB) string{"registry 3": images.Registry, "registry 2": images.Debian28} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, image(t))
			d := s.engine(t)
			began := time.Now()
			e, err := d.Open(t.Context(), "")
			must(t, err)
			t.Logf("%s answered after %v", name, time.Since(began).Round(time.Millisecond))
			if e.Image != s.cfg.Image || e.Handler != nil || !replicaID.MatchString(e.ID) {
				t.Errorf("%+v", e)
			}
			if resp := answer(t, over(t, e), http.MethodGet, "/v2/", nil); resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
			alive, err := d.Alive(t.Context(), []string{"other", e.ID})
			if err != nil || !slices.Equal(alive, []string{e.ID}) {
				t.Errorf("alive %v (%v)", alive, err)
			}
			location := upload(t, over(t, e))
			if location.Scheme != "https" || location.Host != "registry.test:5000" {
				t.Errorf("the upload goes on at %s", location)
			}
			began = time.Now()
			must(t, d.Close(t.Context(), e.ID))
			t.Logf("%s was closed in %v", name, time.Since(began).Round(time.Millisecond))
			must(t, d.Close(t.Context(), e.ID)) // gone is no error
			if left, err := os.ReadDir(filepath.Join(s.cfg.Root, runDir)); err != nil || len(left) > 0 {
				t.Errorf("run/ has %v (%v)", left, err)
			}
			if n := uploads(t, s.cfg.Root); n != 1 {
				t.Errorf("%d uploads outlived their replica, want 1", n)
			}
		})
	}
}

// What one replica begins, another one ends, also the embedded engine.
func TestDockerReplicasShareUploads(t *testing.T) {
	s := newStand(t, images.Registry(t))
	d := s.engine(t)
	replicas := []Endpoint{open(t, d), open(t, d)}
	first, second := over(t, replicas[0]), over(t, replicas[1])
	location := upload(t, first)
	resp := answer(t, second, http.MethodPatch, location.RequestURI(), strings.NewReader("hello "))
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s", resp.Status, text(t, resp))
	}
	location, err := resp.Location()
	must(t, err)
	query := location.Query()
	query.Set("digest", "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")
	location.RawQuery = query.Encode()
	resp = answer(t, first, http.MethodPut, location.RequestURI(), strings.NewReader("world"))
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, text(t, resp))
	}

	// The embedded engine goes on with one, too; from then on the data is its own.
	resp = answer(t, second, http.MethodPatch, upload(t, first).RequestURI(), strings.NewReader("hello "))
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s", resp.Status, text(t, resp))
	}
	location, err = resp.Location()
	must(t, err)
	for _, replica := range replicas {
		must(t, d.Close(t.Context(), replica.ID))
	}
	embedded := newEmbedded(t, EmbeddedConfig{Root: s.cfg.Root, HTTPSecret: s.cfg.HTTPSecret})
	resp = answer(t, embedded, http.MethodGet, location.RequestURI(), nil)
	if resp.StatusCode != http.StatusNoContent || resp.Header.Get("Range") != "0-5" {
		t.Fatalf("%s, %v", resp.Status, resp.Header)
	}
}

func TestDockerReplicaIsLockedDown(t *testing.T) {
	s := newStand(t, images.Spy(t))
	secrets := map[string]string{"state/keys/key": "a CA's key", "state/admin.sock": "", "auth/htpasswd": "ci:hash", "certs/ca.crt": "cert"}
	for name, content := range secrets {
		path := filepath.Join(s.cfg.Root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o777))
		must(t, os.WriteFile(path, []byte(content), 0o666)) // the mask must do it alone
		must(t, os.Chmod(filepath.Dir(path), 0o777))
		must(t, os.Chmod(path, 0o666))
	}
	must(t, os.Chmod(filepath.Join(s.cfg.Root, "state"), 0o777))
	d := s.engine(t)
	e := open(t, d)
	name := d.containerName(e.ID)
	total, err := strconv.ParseInt(docker(t, "info", "--format", "{{.MemTotal}}"), 10, 64)
	must(t, err)
	if limited := docker(t, "info", "--format", "{{.MemoryLimit}}") == "true"; !limited {
		total = 0
	}
	for format, want := range map[string]string{
		"{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.OomScoreAdj}}": fmt.Sprintf("%d %d 500", total/2>>26<<26, maxPIDs),
		"{{.HostConfig.NetworkMode}}":                                              "none",
		"{{.HostConfig.ReadonlyRootfs}}":                                           "true",
		"{{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}}":                           "[ALL] []",
		"{{.HostConfig.SecurityOpt}}":                                              "[no-new-privileges]",
		"{{.HostConfig.Privileged}}":                                               "false",
		"{{.HostConfig.RestartPolicy.Name}}":                                       "no",
		"{{.HostConfig.PidMode}}{{.HostConfig.PortBindings}}{{.HostConfig.Binds}}": "map[][]",
		"{{.Config.User}}":                                                         "65532:65532",
		"{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}}{{end}}":             "volume " + s.cfg.Volume + " " + inside,
		`{{index .Config.Labels "io.trustcast.domain"}} {{index .Config.Labels "io.trustcast.fleet"}}`: s.cfg.Domain + " fleet",
		`{{range $k, $v := .HostConfig.Tmpfs}}{{$k}} {{end}}`:                                          "/var/lib/registry/auth /var/lib/registry/certs /var/lib/registry/state",
		`{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{$v.IPAddress}}{{end}}`:                  "none",
		`{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config "max-size"}}`:             "json-file 10m",
	} {
		if got := docker(t, "inspect", "--format", format, name); got != want {
			t.Errorf("%s is %q, want %q", format, got, want)
		}
	}
	// The image's own REGISTRY_ variable is gone, and no secret is to be seen.
	if got := docker(t, "inspect", "--format", "{{json .Config.Env}}", name); strings.Contains(got, s.cfg.HTTPSecret) || strings.Contains(got, "REGISTRY_HTTP_ADDR=") {
		t.Errorf("the environment is %s", got)
	} else if limit := fmt.Sprintf(`"GOMEMLIMIT=%d"`, memoryOf(total)/10*9); total > 0 && !strings.Contains(got, limit) {
		t.Errorf("no %s in the environment %s", limit, got)
	}

	spy := over(t, e)
	ask := func(path, what string) (int, string) {
		resp := answer(t, spy, http.MethodGet, "/spy/"+path+"?path="+url.QueryEscape(what), nil)
		return resp.StatusCode, text(t, resp)
	}
	_, tree := ask("tree", inside)
	for secret := range secrets {
		if strings.Contains(tree, secret) {
			t.Errorf("a replica sees %s", secret)
		}
		if status, content := ask("file", inside+"/"+secret); status == http.StatusOK {
			t.Errorf("a replica reads %s: %q", secret, content)
		}
	}
	if !strings.Contains(tree, inside+"/"+configName(e.ID)) {
		t.Errorf("the spy sees nothing at all:\n%s", tree)
	}
	for path, want := range map[string]int{
		"/written": http.StatusForbidden, "/tmp/written": http.StatusForbidden, inside + "/written": http.StatusForbidden,
		inside + "/state/written": http.StatusForbidden, inside + "/auth/htpasswd": http.StatusForbidden,
		inside + "/docker/written": http.StatusOK,
	} {
		if status, said := ask("write", path); status != want {
			t.Errorf("writing %s: %d %s", path, status, said)
		}
	}
	_, status := ask("file", "/proc/self/status")
	for _, want := range []string{"Uid:\t65532\t65532", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if _, interfaces := ask("interfaces", ""); strings.TrimSpace(interfaces) != "lo" {
		t.Errorf("interfaces %q", interfaces)
	}
}

func TestDockerFound(t *testing.T) {
	s := newStand(t, images.Registry(t))
	d := s.engine(t)
	kept, killed := open(t, d), open(t, d)
	docker(t, "kill", d.containerName(killed.ID))
	foreign := newStand(t, s.cfg.Image)
	foreign.cfg.Domain, foreign.cfg.Fleet = s.cfg.Domain, "another"
	other := open(t, foreign.engine(t))
	plain := "plain-" + s.cfg.Volume
	docker(t, "create", "--name", plain, "--label", domainLabel+"="+s.cfg.Domain, "--label", fleetLabel+"=fleet", s.cfg.Image)
	defer docker(t, "rm", "--force", "--volumes", plain)

	again := s.engine(t)
	found, err := again.Found(t.Context(), "")
	must(t, err)
	if len(found) != 1 || found[0].ID != kept.ID || found[0].Socket != kept.Socket || found[0].Image != kept.Image || time.Since(found[0].Started) > time.Minute {
		t.Fatalf("found %+v, want %+v", found, kept)
	}
	if resp := answer(t, over(t, other), http.MethodGet, "/v2/", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("another fleet's replica: %s", resp.Status)
	}
	docker(t, "inspect", plain) // is there
	if names := containers(t, s); len(names) != 3 {
		t.Errorf("there are %v", names)
	}

	// Another configuration is not what is wanted.
	one := open(t, again)
	changed := s.cfg
	changed.HTTPSecret = "another"
	if found, err := (&stand{cfg: changed}).engine(t).Found(t.Context(), ""); err != nil || len(found) > 0 {
		t.Errorf("another configuration: found %v (%v)", found, err)
	}
	if alive, err := again.Alive(t.Context(), []string{one.ID}); err != nil || len(alive) > 0 {
		t.Errorf("another configuration: alive %v (%v)", alive, err)
	}
	// Another image may do until there is a new replica.
	one = open(t, again)
	changed = s.cfg
	changed.Image = images.RegistryNext(t)
	if found, err := (&stand{cfg: changed}).engine(t).Found(t.Context(), ""); err != nil || len(found) != 1 || found[0].ID != one.ID || !found[0].Outdated {
		t.Errorf("another image: found %+v (%v)", found, err)
	}
	if found, err := again.Found(t.Context(), ""); err != nil || len(found) != 1 || found[0].Outdated {
		t.Errorf("the same image: found %+v (%v)", found, err)
	}
}

// Without the image a replica that runs is better than none.
func TestDockerFoundWithoutItsImage(t *testing.T) {
	s := newStand(t, images.Registry(t))
	s.cfg.Image = "trustcast-test/passing:" + newReplicaID()
	docker(t, "tag", images.Registry(t), s.cfg.Image)
	d := s.engine(t)
	e := open(t, d)
	docker(t, "image", "rm", s.cfg.Image)
	if found, err := d.Found(t.Context(), ""); err != nil || len(found) != 1 || found[0].ID != e.ID {
		t.Errorf("found %v (%v)", found, err)
	}
}

// containers lists those with the domain's label.
func containers(t *testing.T, s *stand) []string {
	t.Helper()
	return strings.Fields(docker(t, "ps", "--all", "--format", "{{.Names}}", "--filter", "label="+domainLabel+"="+s.cfg.Domain))
}

func TestDockerTakenName(t *testing.T) {
	s := newStand(t, images.Registry(t))
	d := s.engine(t)
	d.newID = func() string { return "aaaaaa" }
	foreign := d.containerName("aaaaaa")
	docker(t, "create", "--name", foreign, s.cfg.Image)
	defer docker(t, "rm", "--force", "--volumes", foreign)
	_, err := d.Open(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), foreign) || !strings.Contains(err.Error(), "docker rename") {
		t.Errorf("error %v", err)
	}
	must(t, d.Close(t.Context(), "aaaaaa"))
	docker(t, "inspect", foreign) // is there

	// One of several names is taken: another one it is.
	ids := []string{"aaaaaa", "bbbbbb"}
	d.newID = func() string { id := ids[0]; ids = ids[1:]; return id }
	if e := open(t, d); e.ID != "bbbbbb" {
		t.Errorf("%+v", e)
	}
}

func TestDockerRefusedConfiguration(t *testing.T) {
	for name, image := range map[string]func(testing.TB) string{"registry 3": images.Registry, "registry 2": images.Debian28} {
		for mistake, section := range map[string]string{
			"panic": "storage: {filesystem: {rootdirectory: /var/lib/registry}, maintenance: {uploadpurging: often}}",
			"parse": "storage: {filesystem: {rootdirectory: /var/lib/registry}, nowhere: {}}",
		} {
			t.Run(name+" "+mistake, func(t *testing.T) {
				s := newStand(t, image(t))
				s.cfg.Config = func(socket string) ([]byte, error) {
					return fmt.Appendf(nil, "version: 0.1\nhttp: {net: unix, addr: %s}\n%s\n", socket, section), nil
				}
				_, err := s.engine(t).Open(t.Context(), "")
				if err == nil || !strings.Contains(err.Error(), "`registry:`") || !strings.Contains(err.Error(), "it said:\n") || len(err.Error()) > 2000 {
					t.Errorf("error %v", err)
				}
				t.Log(err)
				if left, err := os.ReadDir(filepath.Join(s.cfg.Root, runDir)); err != nil || len(left) > 0 {
					t.Errorf("run/ has %v (%v)", left, err)
				}
			})
		}
	}
}

func TestDockerOpenFails(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		want  []string
	}{
		"missing":      {"trustcast.invalid/missing:1", []string{"pull the image trustcast.invalid/missing:1", "docker load", "--registry-image"}},
		"no reference": {"No Image", []string{"No Image", "registry:3"}},
		"no registry":  {images.Foreign(t), []string{"`registry`", "--registry-image"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, "")
			_, err := s.engine(t).Open(t.Context(), c.image)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
			t.Log(err)
			if names := containers(t, s); len(names) > 0 {
				t.Errorf("left: %v", names)
			}
		})
	}
}

// A replica that never answers, or never well, is an error in time, and goes.
func TestDockerReplicaThatDoesNotAnswer(t *testing.T) {
	for image, want := range map[string]string{images.Deaf(t): "listens to nobody", images.Sick(t): "503"} {
		s := newStand(t, image)
		d := s.engine(t)
		d.patience = 2 * time.Second
		_, err := d.Open(t.Context(), "")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "did not answer within 2s") {
			t.Errorf("error %v", err)
		}
		d.patience = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Open(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	}
}

func TestDockerLogs(t *testing.T) {
	s := newStand(t, images.Registry(t))
	d := s.engine(t)
	e := open(t, d)
	logged := func(tail int, want string) string {
		var lines bytes.Buffer
		eventually(t, "the log has "+want, func() bool { // the engine takes a moment
			lines.Reset()
			must(t, d.Logs(t.Context(), e.ID, tail, false, &lines))
			return strings.Contains(lines.String(), want)
		})
		return lines.String()
	}
	answer(t, over(t, e), http.MethodGet, "/v2/app/manifests/missing", nil)
	logged(0, "unknown tag=missing")
	answer(t, over(t, e), http.MethodGet, "/v2/app/manifests/other", nil)
	if last := logged(1, "unknown tag=other"); strings.Count(last, "\n") != 1 {
		t.Errorf("last line %q", last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- d.Logs(ctx, e.ID, 1, true, w) }()
	_, err := r.Read(make([]byte, 1000)) // what was, and it goes on
	must(t, err)
	cancel()
	must(t, <-ended)
	if err := d.Logs(t.Context(), "zzzzzz", 0, false, io.Discard); err == nil || !strings.Contains(err.Error(), "registry status") {
		t.Errorf("error %v", err)
	}
}

func TestDockerConfigMistakes(t *testing.T) {
	s := newStand(t, "")
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	must(t, os.Mkdir(long, 0o755))
	for name, c := range map[string]struct {
		change func(*DockerConfig)
		want   []string
	}{
		"no volume":        {func(c *DockerConfig) { c.Volume += "-missing" }, []string{s.cfg.Volume + "-missing", "trustcast init --domain " + s.cfg.Domain + " --engine docker --volume"}},
		"another root":     {func(c *DockerConfig) { c.Root = "/usr" }, []string{"--data-dir " + s.cfg.Root, "docker run --volume " + s.cfg.Volume + ":/usr", "docker volume create"}},
		"a long path":      {func(c *DockerConfig) { c.Root = long }, []string{"107", "shorter name"}},
		"no network":       {func(c *DockerConfig) { c.Network = "missing-net" }, []string{"docker network create missing-net", "--registry-network"}},
		"nothing":          {func(c *DockerConfig) { *c = DockerConfig{} }, []string{"--volume"}},
		"not even a host:": {func(c *DockerConfig) { c.Host = "nowhere" }, []string{"DOCKER_HOST"}},
	} {
		cfg := s.cfg
		c.change(&cfg)
		_, err := NewDocker(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in: %v", name, want, err)
			}
		}
		t.Logf("%s: %v", name, err)
	}
}

func TestDockerVolumeIsUsedAsItIs(t *testing.T) {
	s := newStand(t, "")
	must(t, os.WriteFile(filepath.Join(s.cfg.Root, "mine"), nil, 0o600))
	before := docker(t, "volume", "inspect", s.cfg.Volume)
	dir, err := DockerVolume(t.Context(), "", s.cfg.Volume, "another.test:5000")
	must(t, err)
	if dir != s.cfg.Root {
		t.Errorf("%s, then %s", s.cfg.Root, dir)
	}
	if diff := cmp.Diff(before, docker(t, "volume", "inspect", s.cfg.Volume)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(before, `"io.trustcast.domain": "`+s.cfg.Domain+`"`) {
		t.Errorf("the volume is not labelled: %s", before)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Error(err)
	}
}

// A volume can stand for a directory, such as the embedded engine's.
func TestDockerVolumeOfADirectory(t *testing.T) {
	s := newStand(t, images.Registry(t))
	root := t.TempDir()
	must(t, os.Chmod(root, 0o700)) // replicas get through all the same
	name := s.cfg.Volume + "-dir"
	docker(t, "volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device="+root, name)
	t.Cleanup(func() { docker(t, "volume", "rm", name) })
	embedded := newEmbedded(t, EmbeddedConfig{Root: root, HTTPSecret: s.cfg.HTTPSecret})
	location := upload(t, embedded)
	dir, err := DockerVolume(t.Context(), "", name, "")
	if err != nil || dir != root {
		t.Fatalf("%s, %v", dir, err)
	}
	s.cfg.Volume, s.cfg.Root = name, root
	e := open(t, s.engine(t))
	resp := answer(t, over(t, e), http.MethodPatch, location.RequestURI(), strings.NewReader("part"))
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("%s: %s", resp.Status, text(t, resp))
	}
	if names, err := writers(t.Context(), "", root); err != nil || len(names) != 1 || !strings.Contains(names[0], e.ID) {
		t.Errorf("%v write in it (%v), want %s", names, err, e.ID)
	}
}
