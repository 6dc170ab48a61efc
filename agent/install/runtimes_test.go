package install

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// machine is a System in a directory of the test's; files end without a slash.
func machine(t *testing.T, files map[string]string) System {
	t.Helper()
	s := System{Root: t.TempDir()}
	for path, content := range files {
		if strings.HasSuffix(path, "/") {
			must(t, os.MkdirAll(s.path(path), 0o755))
		} else {
			write(t, s.path(path), content)
		}
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	criPath   = "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"/etc/containerd/certs.d\" # ours\n"
	imagePath = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n"
)

// TestDetect: what is here is found, what is not is left alone.
func TestDetect(t *testing.T) {
	for what, c := range map[string]struct {
		files    map[string]string
		runtimes []string
		want     []string
		manual   []string
	}{
		"nothing given":           {map[string]string{"etc/containers/": ""}, nil, []string{"docker"}, nil},
		"an empty host":           {nil, []string{Auto}, []string{"docker"}, nil},
		"podman's directory":      {map[string]string{"etc/containers/": ""}, []string{Auto}, []string{"docker", "containers"}, nil},
		"podman":                  {map[string]string{"usr/bin/podman": ""}, []string{Auto}, []string{"docker", "containers"}, nil},
		"podman, not wanted":      {map[string]string{"usr/bin/podman": ""}, []string{"docker"}, []string{"docker"}, nil},
		"podman alone":            {nil, []string{"containers"}, []string{"containers"}, nil},
		"containerd, default":     {map[string]string{containerdConfig: "version = 2\n"}, []string{Auto}, []string{"docker"}, nil},
		"containerd, CRI":         {map[string]string{containerdConfig: criPath}, []string{Auto}, []string{"docker", "containerd"}, nil},
		"containerd, CRI off":     {map[string]string{containerdConfig: "disabled_plugins = [\"cri\"]\n" + criPath}, []string{Auto}, []string{"docker"}, nil},
		"containerd 2":            {map[string]string{containerdConfig: imagePath}, []string{Auto}, []string{"docker", "containerd"}, nil},
		"containerd 2, default":   {map[string]string{containerdConfig: "version = 3\n"}, []string{Auto}, []string{"docker", "containerd"}, nil},
		"containerd, elsewhere":   {map[string]string{containerdConfig: strings.ReplaceAll(criPath, "/etc/containerd/certs.d", "/srv/certs")}, []string{Auto}, []string{"docker"}, nil},
		"containerd, a comment":   {map[string]string{containerdConfig: strings.ReplaceAll(criPath, "config_path", "# config_path")}, []string{Auto}, []string{"docker"}, nil},
		"containerd, imported":    {map[string]string{containerdConfig: "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n", "etc/containerd/conf.d/x.toml": criPath}, []string{Auto}, []string{"docker", "containerd"}, nil},
		"containerd, listed":      {nil, []string{"docker", "containerd"}, []string{"docker", "containerd"}, []string{"containerd"}},
		"kubelet with containerd": {map[string]string{containerdConfig: "version = 2\n", "var/lib/kubelet/": ""}, []string{Auto}, []string{"docker"}, []string{"containerd"}},
		"k3s":                     {map[string]string{"etc/rancher/k3s/": ""}, []string{Auto}, []string{"docker"}, []string{"k3s"}},
		"buildkitd":               {map[string]string{"usr/local/bin/buildkitd": ""}, []string{Auto}, []string{"docker"}, []string{"buildkitd"}},
		"Docker Desktop":          {map[string]string{"opt/docker-desktop/": ""}, []string{Auto}, []string{"docker"}, []string{"docker-desktop"}},
		"builders": {map[string]string{
			"home/bob/.docker/buildx/instances/mine":  `{"Name":"mine","Driver":"docker-container"}`,
			"home/bob/.docker/buildx/instances/other": `{"Name":"other","Driver":"docker"}`,
			"root/.docker/buildx/instances/ci":        `{"Driver":"docker-container","Nodes":[]}`,
			"root/.docker/buildx/instances/garbage":   `{`,
		}, []string{Auto}, []string{"docker"}, []string{"buildx:ci", "buildx:mine"}},
	} {
		t.Run(what, func(t *testing.T) {
			s := machine(t, c.files)
			d, err := Detect(s, c.runtimes)
			must(t, err)
			var manual []string
			for _, m := range d.Manual {
				manual = append(manual, m.Runtime)
				steps := m.Instructions(names(t)[0], "/etc/docker/certs.d/x/ca.crt")
				if strings.Contains(steps, "DOMAIN") || strings.Contains(steps, "FILE") || m.Why == "" {
					t.Errorf("%s: %q", m.Runtime, steps)
				}
			}
			if got := (Host{Places: d.Places}).Runtimes(); !slices.Equal(got, c.want) {
				t.Errorf("found %v, want %v", got, c.want)
			}
			if !slices.Equal(manual, c.manual) {
				t.Errorf("to be done by hand: %v, want %v", manual, c.manual)
			}
		})
	}
}

func TestWrongRuntimes(t *testing.T) {
	for _, list := range [][]string{{"auto", "docker"}, {"podman"}, {""}, {"docker:x"}, {"rootless:"}, {"rootless:../x"}, {"rootless:nobody-here"}} {
		if places, err := Places(System{Root: t.TempDir()}, list); err == nil {
			t.Errorf("%q gives %v", list, places)
		}
	}
}

// at is what one runtime's directory holds, as read back.
func at(t *testing.T, found []Found, runtime string) []Found {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(found), func(f Found) bool { return f.Runtime != runtime })
}

// installed puts the CA onto a machine.
func installed(t *testing.T, s System, runtimes ...string) (Host, Owned) {
	t.Helper()
	places, err := Places(s, runtimes)
	must(t, err)
	h := Host{Places: places}
	must(t, h.Check())
	owned := h.Plan(plain(t), Owned{})
	must(t, h.Apply(plain(t), owned, newPEM(t)))
	return h, owned
}

const (
	dockers     = "etc/docker/certs.d/registry.test:5000/"
	podmans     = "etc/containers/certs.d/registry.test:5000/"
	containerds = "etc/containerd/certs.d/registry.test:5000/"
)

// TestWhereItGoes: each runtime finds our file in the directory that it really reads,
// and nothing that others put there is hidden; afterwards all is as it was.
func TestWhereItGoes(t *testing.T) {
	all := []string{Auto}
	for what, c := range map[string]struct {
		files map[string]string
		want  []string // our files
	}{
		"Docker":                     {nil, []string{dockers + "ca.crt"}},
		"Docker, podman, containerd": {map[string]string{"etc/containers/": "", containerdConfig: imagePath}, []string{dockers + "ca.crt", podmans + "ca.crt", containerds + "ca.crt"}},
		"podman, a client certificate in Docker's":     {map[string]string{"etc/containers/": "", dockers + "c.cert": "", dockers + "c.key": ""}, []string{dockers + "ca.crt"}},
		"podman, an empty directory that hides":        {map[string]string{podmans: "", dockers + "c.cert": "", dockers + "c.key": ""}, []string{dockers + "ca.crt", podmans + "ca.crt"}},
		"podman, a CA of somebody's":                   {map[string]string{podmans + "ca.crt": "theirs"}, []string{dockers + "ca.crt", podmans + "trustcast-ca.crt"}},
		"both names taken":                             {map[string]string{dockers + "ca.crt": "theirs", dockers + "trustcast-ca.crt": "theirs"}, []string{dockers + "trustcast-ca-2.crt"}},
		"containerd 1, a client certificate":           {map[string]string{containerdConfig: criPath, dockers + "c.cert": "", dockers + "c.key": ""}, []string{dockers + "ca.crt", containerds + "ca.crt"}},
		"containerd 2, a client certificate":           {map[string]string{containerdConfig: imagePath, dockers + "c.cert": "", dockers + "c.key": ""}, []string{dockers + "ca.crt"}},
		"containerd 2, and a default that hides it":    {map[string]string{containerdConfig: imagePath, dockers + "c.cert": "", dockers + "c.key": "", "etc/containerd/certs.d/_default/ca.crt": ""}, []string{dockers + "ca.crt", containerds + "ca.crt"}},
		"an underscored directory":                     {map[string]string{"etc/docker/certs.d/registry.test_5000_/x.crt": "theirs"}, []string{dockers + "ca.crt", "etc/docker/certs.d/registry.test_5000_/ca.crt"}},
		"podman knows no underscored directory":        {map[string]string{"etc/containers/certs.d/registry.test_5000_/": ""}, []string{dockers + "ca.crt", podmans + "ca.crt"}},
		"an underscored directory of another registry": {map[string]string{"etc/docker/certs.d/registry.test_5001_/": ""}, []string{dockers + "ca.crt"}},
	} {
		t.Run(what, func(t *testing.T) {
			s := machine(t, c.files)
			before := tree(t, s.Root)
			h, owned := installed(t, s, all...)
			var want []string
			for _, path := range c.want {
				want = append(want, s.path(path))
			}
			slices.Sort(want)
			got := slices.Sorted(slices.Values(owned.Files))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("our files (-want +got):\n%s", diff)
			}
			for _, f := range h.Read(plain(t), owned) {
				if f.Problem != "" || f.Fingerprint == "" || f.Note != "" && !strings.Contains(what, "default") {
					t.Errorf("read back: %+v", f)
				}
			}
			during := tree(t, s.Root)
			for path, content := range before {
				if during[path] != content {
					t.Errorf("%s was changed", path)
				}
			}
			_, err := Host{}.Remove(owned) // runtimes that are gone by now
			must(t, err)
			if diff := cmp.Diff(before, tree(t, s.Root)); diff != "" {
				t.Errorf("not as it was:\n%s", diff)
			}
		})
	}
}

// TestHidden: a runtime that reads another directory, or not our file, is a problem
// that says what to do; what merely deserves a look is a note.
func TestHidden(t *testing.T) {
	for what, c := range map[string]struct {
		runtime       string
		harm          func(t *testing.T, s System)
		problem, note string
	}{
		"nothing": {"docker", func(*testing.T, System) {}, "", ""},
		"root's own podman directory": {"containers", func(t *testing.T, s System) {
			must(t, os.MkdirAll(s.path("root/.config/containers/certs.d/registry.test:5000"), 0o755))
		}, "root/.config/containers", ""},
		"root's own, with our CA": {"containers", func(t *testing.T, s System) {
			data, err := os.ReadFile(s.path(podmans + "ca.crt"))
			must(t, err)
			write(t, s.path("root/.config/containers/certs.d/registry.test:5000/copy.crt"), string(data))
		}, "", ""},
		"root's own, with another CA": {"containers", func(t *testing.T, s System) {
			write(t, s.path("root/.config/containers/certs.d/registry.test:5000/ca.crt"), string(newPEM(t)))
		}, "root/.config/containers", ""},
		"Docker's default": {"docker", func(t *testing.T, s System) {
			must(t, os.MkdirAll(s.path("etc/docker/certs.d/_default"), 0o755))
		}, "", "_default"},
		"podman knows no default": {"containers", func(t *testing.T, s System) {
			must(t, os.MkdirAll(s.path("etc/containers/certs.d/_default"), 0o755))
		}, "", ""},
		"hosts.toml": {"containerd", func(t *testing.T, s System) {
			write(t, s.path(containerds+"hosts.toml"), "server = \"https://registry.test:5000\"\n# ca = \"ca.crt\"\n")
		}, "has no [host] table", ""},
		"a hosts.toml of hosts": {"containerd", func(t *testing.T, s System) {
			write(t, s.path(containerds+"hosts.toml"), "[host.\"https://registry.test:5000\"]\n  ca = \"other.crt\"\n")
		}, "add the line ca = ", ""},
		"an empty hosts.toml": {"containerd", func(t *testing.T, s System) { write(t, s.path(containerds+"hosts.toml"), "") }, "", ""},
		"a hosts.toml that names it": {"containerd", func(t *testing.T, s System) {
			write(t, s.path(containerds+"hosts.toml"), "ca = [\"other.crt\", \""+s.path(containerds+"ca.crt")+"\"]\n")
		}, "", ""},
		"Docker's hosts.toml":  {"docker", func(t *testing.T, s System) { write(t, s.path(dockers+"hosts.toml"), "x = 1\n") }, "hosts.toml", ""},
		"podman reads no toml": {"containers", func(t *testing.T, s System) { write(t, s.path(podmans+"hosts.toml"), "x = 1\n") }, "", ""},
		"an underscored one": {"docker", func(t *testing.T, s System) {
			must(t, os.MkdirAll(s.path("etc/docker/certs.d/registry.test_5000_"), 0o755))
		}, "registry.test_5000_/ca.crt", ""},
		"nobody else may read":  {"containers", func(t *testing.T, s System) { must(t, os.Chmod(s.path(podmans+"ca.crt"), 0o600)) }, "other permissions than 0644", ""},
		"nobody else may enter": {"containers", func(t *testing.T, s System) { must(t, os.Chmod(s.path(podmans), 0o700)) }, "other permissions than 0755", ""},
	} {
		t.Run(what, func(t *testing.T) {
			s := machine(t, map[string]string{"etc/containers/": "", containerdConfig: criPath})
			h, owned := installed(t, s, Auto)
			c.harm(t, s)
			problem, note := "", ""
			for _, f := range at(t, h.Read(plain(t), owned), c.runtime) {
				problem, note = problem+f.Problem, note+f.Note
			}
			if (problem == "") != (c.problem == "") || !strings.Contains(problem, c.problem) {
				t.Errorf("problem %q, want %q", problem, c.problem)
			}
			if (note == "") != (c.note == "") || !strings.Contains(note, c.note) {
				t.Errorf("note %q, want %q", note, c.note)
			}
		})
	}
}

// TestModesAreMended: what others may not read is not in effect, and written again.
func TestModesAreMended(t *testing.T) {
	s := machine(t, map[string]string{"etc/containers/": ""})
	h, owned := installed(t, s, Auto)
	pem, err := os.ReadFile(s.path(podmans + "ca.crt"))
	must(t, err)
	for _, path := range []string{podmans + "ca.crt", podmans, "etc/containers/certs.d"} {
		must(t, os.Chmod(s.path(path), 0o700))
		if f := at(t, h.Read(plain(t), owned), "containers")[0]; f.Problem == "" || f.Fingerprint != "" {
			t.Errorf("%s: not seen: %+v", path, f)
		}
		must(t, h.Apply(plain(t), owned, pem))
		if f := at(t, h.Read(plain(t), owned), "containers")[0]; f.Problem != "" || f.Fingerprint == "" {
			t.Errorf("%s: not mended: %+v", path, f)
		}
	}
}

// TestNewRuntime: one that comes later is planned for, and what is not installed for
// any more is told apart.
func TestNewRuntime(t *testing.T) {
	s := machine(t, nil)
	_, owned := installed(t, s, Auto)
	must(t, os.MkdirAll(s.path("etc/containers"), 0o755))
	places, err := Places(s, []string{Auto})
	must(t, err)
	h := Host{Places: places}
	if plan := h.Plan(plain(t), owned); len(plan.Files) != len(owned.Files)+1 {
		t.Errorf("planned %v", plan.Files)
	}
	docker, err := Places(s, []string{"docker"})
	must(t, err)
	in, elsewhere := Host{Places: docker}.Divide(h.Plan(plain(t), owned))
	if diff := cmp.Diff([]string{s.path(dockers + "ca.crt")}, in.Files); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{s.path(podmans + "ca.crt")}, elsewhere.Files); diff != "" {
		t.Error(diff)
	}
}

// TestMissingUser: what is there besides is installed for all the same.
func TestMissingUser(t *testing.T) {
	places, err := Places(System{Root: t.TempDir()}, []string{"docker", "rootless:nobody-here"})
	if err == nil || !strings.Contains(err.Error(), "nobody-here") || len(places) != 1 {
		t.Errorf("%v, %v", places, err)
	}
}
