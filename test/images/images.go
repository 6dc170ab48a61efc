// Package images makes the registry images that tests run: built on this machine
// from sources and from Debian's package, since tests reach no other registry.
//
// An image is built once a machine and found again by a label over all that went
// into it; it stays for the next run. Each function skips its test, with the
// reason, where there is no Docker engine or nothing to build from.
package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// Repository is where all images are tagged.
	Repository = "trustcast-test/registry"

	// recipeLabel holds the hash over what an image was made from.
	recipeLabel = "io.trustcast.test.recipe"
	// recipe grows with each change of how images are made.
	recipe = "2"

	// buildBound is far above a build from an empty module cache.
	buildBound = 15 * time.Minute
)

// Registry is distribution v3 as the official image registry:3 has it, built from
// the version in go.mod.
func Registry(t testing.TB) string { return official(t, "3a") }

// RegistryNext is the same under another version, to upgrade to and back.
func RegistryNext(t testing.TB) string { return official(t, "3b") }

// Debian28 is Debian's docker-registry 2.8.2, as the official image registry:2 has
// it. Its binary is the installed one, or comes from the package, which is
// downloaded and not installed.
func Debian28(t testing.TB) string {
	return image(t, "2", "debian docker-registry", func(dir string) (string, error) {
		binary, err := debianRegistry(t)
		if err != nil {
			return "", err
		}
		if err := copyWithLibraries(t.Context(), binary, dir); err != nil {
			return "", err
		}
		return "FROM scratch\nCOPY root/ /\n" + asOfficial("/etc/docker/registry/config.yml"), writeConfig(dir, "/etc/docker/registry/config.yml")
	})
}

// Spy takes a registry's place and tells what it sees; test/images/spy says how.
func Spy(t testing.TB) string { return spy(t, "spy") }

// Deaf starts and never answers.
func Deaf(t testing.TB) string { return spy(t, "deaf") }

// Sick answers every request with 503.
func Sick(t testing.TB) string { return spy(t, "sick") }

// Foreign is an image with no registry in it.
func Foreign(t testing.TB) string {
	return image(t, "foreign", "nothing", func(dir string) (string, error) {
		return "FROM scratch\nCOPY nothing /\nCMD [\"/nothing\"]\n", os.WriteFile(filepath.Join(dir, "nothing"), nil, 0o600)
	})
}

// Docker skips the test where no engine answers, and returns the client's name.
func Docker(t testing.TB) string {
	t.Helper()
	if why := noDocker(); why != "" {
		Skip(t, "needs a Docker engine: "+why)
	}
	return "docker"
}

// requireEnv set to 1 makes a missing engine or program a failure: where all tests
// shall run, none may be skipped unseen.
const requireEnv = "TRUSTCAST_REQUIRE_DOCKER"

// Required says whether no test may be skipped for want of an engine or a program.
func Required() bool { return os.Getenv(requireEnv) == "1" }

// Skip skips the test with the reason, or fails it where nothing may be skipped.
func Skip(t testing.TB, why string) {
	t.Helper()
	if Required() {
		t.Fatalf("%s is set, and this test %s", requireEnv, why)
	}
	t.Skip(why)
}

var noDocker = sync.OnceValue(func() string {
	if os.Geteuid() != 0 {
		return "these tests run as root"
	}
	if _, err := exec.LookPath("docker"); err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := output(ctx, "docker", "version"); err != nil {
		return err.Error()
	}
	return ""
})

// Load brings an image of the machine's engine to the one at host, such as
// unix:///tmp/x/docker.sock.
func Load(t testing.TB, host, image string) {
	t.Helper()
	save := exec.CommandContext(t.Context(), "docker", "save", image)
	load := exec.CommandContext(t.Context(), "docker", "--host", host, "load", "--quiet")
	var saving, loading bytes.Buffer
	save.Stderr, load.Stderr = &saving, &loading
	pipe, err := save.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	load.Stdin = pipe
	if err := errors.Join(save.Start(), load.Run(), save.Wait()); err != nil {
		t.Fatalf("load %s into %s: %v: %s%s", image, host, err, &saving, &loading)
	}
}

// asOfficial is how the official images start when nothing else is said: as root, on
// port 5000, with the data in an anonymous volume.
func asOfficial(config string) string {
	return `VOLUME ["/var/lib/registry"]
EXPOSE 5000
ENTRYPOINT ["registry"]
CMD ["serve", "` + config + `"]
`
}

// writeConfig adds the configuration of an official image: where it is depends on
// the version.
func writeConfig(dir, path string) error {
	target := filepath.Join(dir, "root", path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, []byte(`version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: /var/lib/registry}
http: {addr: ":5000"}
`), 0o644)
}

const distribution = "github.com/distribution/distribution/v3"

func official(t testing.TB, tag string) string {
	t.Helper()
	Docker(t)
	version, err := output(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", distribution)
	if err != nil {
		t.Fatal(err)
	}
	version = strings.TrimSpace(version)
	said := version + "-" + tag
	return image(t, tag, said, func(dir string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "go", "install", "-trimpath",
			"-ldflags", "-s -w -X "+distribution+"/version.version="+said, distribution+"/cmd/registry@"+version)
		cmd.Dir = dir // outside of the module, whose go.sum lacks the storage drivers
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+filepath.Join(dir, "root/bin"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s/cmd/registry: %w: %s", distribution, err, out)
		}
		return "FROM scratch\nCOPY root/ /\nLABEL org.opencontainers.image.version=" + said + "\n" + asOfficial("/etc/distribution/config.yml"), writeConfig(dir, "/etc/distribution/config.yml")
	})
}

func spy(t testing.TB, mood string) string {
	t.Helper()
	source, err := output(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/trustcast/trustcast/test/images/spy")
	if err != nil {
		t.Fatal(err)
	}
	main, err := os.ReadFile(filepath.Join(strings.TrimSpace(source), "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	return image(t, mood, string(main), func(dir string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "registry"), ".")
		cmd.Dir = strings.TrimSpace(source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the spy: %w: %s", err, out)
		}
		return "FROM scratch\nCOPY registry /bin/\nENV SPY=" + mood + " REGISTRY_HTTP_ADDR=:5000\n", nil
	})
}

// image returns the image of that tag, built unless it is there. from is all that
// decides about its content; files fills the build's directory and returns the
// Dockerfile. Builds of all test programs on the machine wait for each other.
func image(t testing.TB, tag, from string, files func(dir string) (string, error)) string {
	t.Helper()
	Docker(t)
	ref := Repository + ":" + tag
	sum := sha256.Sum256([]byte(recipe + "\n" + tag + "\n" + from))
	want := hex.EncodeToString(sum[:])
	ctx, cancel := context.WithTimeout(t.Context(), buildBound)
	defer cancel()
	unlock := lock(t)
	defer unlock()
	label, err := output(ctx, "docker", "image", "inspect", "--format", `{{index .Config.Labels "`+recipeLabel+`"}}`, ref)
	if err == nil && strings.TrimSpace(label) == want {
		return ref
	}
	if err == nil { // made from something else: none of its layers is worth keeping
		_, _ = output(ctx, "docker", "image", "rm", "--force", ref)
	}
	dir := t.TempDir()
	dockerfile, err := files(dir)
	if errors.Is(err, errNothing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(ctx, "docker", "build", "--quiet", "--force-rm", "--tag", ref, "--label", recipeLabel+"="+want, dir)
	build.Env = append(os.Environ(), "DOCKER_BUILDKIT=0") // buildx may not be there
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", ref, err, out)
	}
	return ref
}

// errNothing is the reason to skip a test: there is nothing to build from.
var errNothing = errors.New("no registry to build an image from")

// debianRegistry returns the path of Debian's binary.
func debianRegistry(t testing.TB) (string, error) {
	if path, err := exec.LookPath("docker-registry"); err == nil {
		return path, nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("%w: neither docker-registry nor apt-get is here", errNothing)
	}
	scratch := t.TempDir()
	get := exec.CommandContext(t.Context(), "apt-get", "download", "docker-registry")
	get.Dir = scratch
	if out, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: apt-get download docker-registry: %w: %s", errNothing, err, out)
	}
	packages, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get downloaded %v (%w)", packages, err)
	}
	unpacked := filepath.Join(scratch, "unpacked")
	if _, err := output(t.Context(), "dpkg", "--extract", packages[0], unpacked); err != nil {
		return "", err
	}
	return filepath.Join(unpacked, "usr/bin/docker-registry"), nil
}

// copyWithLibraries puts a program as /bin/registry, and what it is linked to where
// it looks for it, below dir/root.
func copyWithLibraries(ctx context.Context, program, dir string) error {
	root := filepath.Join(dir, "root")
	if err := copyFile(program, filepath.Join(root, "bin/registry")); err != nil {
		return err
	}
	linked, err := output(ctx, "ldd", program)
	if err != nil {
		return nil //nolint:nilerr // ldd fails for a static program, which needs nothing
	}
	for field := range strings.FieldsSeq(linked) {
		if strings.HasPrefix(field, "/") {
			if err := copyFile(field, filepath.Join(root, field)); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// lock keeps other test programs of this machine from building at the same time.
func lock(t testing.TB) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "trustcast-test-images.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() }
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
