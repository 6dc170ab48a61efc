package cli_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// planted is a secret wherever it stands in the parameters below.
const planted = "hunter2"

// trustcast runs the program on a machine with this configuration file and these
// variables, and returns its exit code and all that it printed.
func trustcast(t *testing.T, file string, environ []string, args ...string) (code int, printed string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "trustcast"), append(args, "--config", "c.yaml", "--data-dir", "d")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.Env = slices.Concat(environ, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")})
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "d")); err == nil {
		t.Errorf("%v made a data directory", args)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// inContainers are the variables of the docker engine with a network.
var inContainers = []string{"TRUSTCAST_ENGINE=docker", "TRUSTCAST_REGISTRY_NETWORK=n"}

// Each secret among the registry's parameters is shown as one, and no other way.
func TestSecretParametersAreHidden(t *testing.T) {
	for name, c := range map[string]struct {
		section string
		environ []string
	}{
		"s3": {section: `storage: {s3: {region: eu-west-1, bucket: b, accesskey: hunter2, secretkey: hunter2, sessiontoken: hunter2,
    regionendpoint: "https://u:hunter2@h"}}`},
		"s3aws":  {section: `storage: {s3aws: {region: eu-west-1, bucket: b, accesskey: hunter2, secretkey: hunter2}}`},
		"azure":  {section: `storage: {azure: {accountname: a, accountkey: hunter2, container: c, credentials: {secret: hunter2}}}`, environ: inContainers},
		"gcs":    {section: `storage: {gcs: {bucket: b, credentials: {private_key: hunter2, private_key_id: hunter2}}}`, environ: inContainers},
		"swift":  {section: `storage: {swift: {authurl: "https://u:hunter2@h", container: c, password: hunter2, secretkey: hunter2, accesskey: hunter2}}`, environ: inContainers},
		"oss":    {section: `storage: {oss: {accesskeyid: hunter2, accesskeysecret: hunter2, region: r, bucket: b}}`, environ: inContainers},
		"http":   {section: `http: {secret: hunter2}`},
		"redis":  {section: `redis: {addrs: ["h:1"], password: hunter2, sentinelpassword: hunter2}`},
		"proxy":  {section: `proxy: {remoteurl: "https://h", username: u, password: hunter2}`},
		"events": {section: `notifications: {endpoints: [{name: a, url: "https://u:hunter2@h/x", headers: {Authorization: ["Bearer hunter2"], X-Key: [hunter2]}}]}`},
		"health": {section: `health: {http: [{uri: "https://u:hunter2@h", headers: {Authorization: [hunter2]}}]}`},
		"mail":   {section: `log: {hooks: [{type: mail, levels: [panic], options: {smtp: {addr: "h:25", username: u, password: hunter2}, from: a, to: [b]}}]}`, environ: inContainers},
		"middleware": {section: `middleware: {storage: [{name: cloudfront, options: {baseurl: "https://h", privatekey: /hunter2, keypairid: k}},
    {name: redirect, options: {baseurl: "https://u:hunter2@h"}}]}`},
		"environment": {environ: []string{
			"REGISTRY_HTTP_SECRET=hunter2", "REGISTRY_REDIS_ADDRS=[h:1]", "REGISTRY_REDIS_PASSWORD=hunter2", "REGISTRY_PROXY_REMOTEURL=https://h",
			"REGISTRY_PROXY_USERNAME=u",
			"REGISTRY_PROXY_PASSWORD=hunter2", "REGISTRY_STORAGE_S3_ACCESSKEY=hunter2", "REGISTRY_STORAGE_S3_SECRETKEY=hunter2", "REGISTRY_STORAGE_S3_REGION=eu-west-1", "REGISTRY_STORAGE_S3_BUCKET=b",
			"REGISTRY_NOTIFICATIONS_ENDPOINTS=[{name: a, url: 'https://h', headers: {Authorization: [hunter2]}}]",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want := strings.Count(c.section+strings.Join(c.environ, " "), planted)
			if !strings.Contains(c.section, "http:") && !strings.Contains(strings.Join(c.environ, " "), "HTTP_SECRET") || name == "health" {
				want++ // the one that is made when none is given
			}
			for _, format := range []string{"text", "json"} {
				code, printed := trustcast(t, "registry:\n  "+c.section+"\n", c.environ, "config", "show", "-o", format)
				if code != 0 || strings.Contains(printed, planted) || strings.Count(printed, "(secret)") != want {
					t.Errorf("exit code %d; want %d times (secret), and nowhere %s:\n%s", code, want, planted, printed)
				}
			}
		})
	}
}

// What operators get wrong is an error that names the key, ends the start before
// anything is made, and repeats no secret.
func TestMistakesOfOperators(t *testing.T) {
	bare := []string{"TRUSTCAST_ENGINE=docker", "TRUSTCAST_VOLUME=v"}
	for _, c := range []struct {
		section string
		environ []string
		want    string
	}{
		// A section, a list or a value in another's place.
		{section: `storage: {cache: redis}`, want: "c.yaml:2: registry.storage.cache: takes a section"},
		{section: `proxy: https://registry-1.docker.io`, want: "registry.proxy: takes a section"},
		{section: `redis: {addrs: "h:1", password: hunter2}`, want: "registry.redis.addrs: takes a list"},
		{section: `notifications: {endpoints: {name: a, url: "https://h", headers: {Authorization: [hunter2]}}}`, want: "registry.notifications.endpoints: takes a list"},
		{section: `notifications: {endpoints: [{name: a, url: "https://h", headers: {Authorization: Bearer hunter2}}]}`, want: "registry.notifications.endpoints.0.headers.Authorization: takes a list"},
		{section: `http: {secret: [hunter2]}`, want: "registry.http.secret: takes one value"},
		{section: `storage: {maintenance: {readonly: true}}`, want: "registry.storage.maintenance.readonly: takes a section"},
		// Units of other programs.
		{section: `storage: {maintenance: {uploadpurging: {age: 1w}}}`, want: `registry.storage.maintenance.uploadpurging.age: "1w" is not a duration`},
		{section: `proxy: {remoteurl: "https://h", password: hunter2, ttl: 7d}`, want: `registry.proxy.ttl: "7d" is not a duration`},
		{section: `storage: {s3: {bucket: b, region: eu-west-1, accesskey: hunter2, secretkey: hunter2, chunksize: 10mb}}`, want: `registry.storage.s3.chunksize: "10mb" is not a whole number`},
		{section: `storage: {s3: {bucket: b, region: eu-west-1, accesskey: hunter2, secretkey: hunter2, chunksize: 1000}}`, want: "registry.storage.s3: the chunksize 1000 parameter should be a number between"},
		{section: `log: {level: WARNING}`, want: "registry.log.level: invalid loglevel warning Must be one of"},
		// Names of other versions, and typing errors.
		{section: `redis: {addr: "h:1", password: hunter2}`, want: "registry.redis.addr: there is no such key"},
		{section: `storage: {s3: {bucket: b, region: eu-west-1, secret: hunter2}}`, want: "registry.storage.s3.secret: there is no such key"},
		{section: `storage: {s3: {region: eu-west-1, accesskey: hunter2, secretkey: hunter2}}`, want: "registry.storage.s3: no bucket parameter"},
		{section: `storage: {s3: {bucket: b, region: eu-west1, accesskey: hunter2, secretkey: hunter2}}`, want: "registry.storage.s3: invalid region"},
		{section: `storage: {s3: {bucket: b, region: eu-west-1, accesskey: hunter2, secretkey: hunter2, storageclass: CHEAP}}`, want: "registry.storage.s3: the storageclass parameter must be one of"},
		{section: `storage: {minio: {bucket: b, secretkey: hunter2}}`, want: "registry.storage.minio: neither a storage driver"},
		{section: `storage: {gcs: {bucket: b}}`, want: "registry.storage.gcs: the embedded registry has no storage driver gcs"},
		{environ: []string{"REGISTRY_HTTP_SECRE=hunter2"}, want: "environment variable REGISTRY_HTTP_SECRE: there is no SECRE in it"},
		{environ: []string{"REGISTRY_STORAGE_S3_SECRET_KEY=hunter2"}, want: "environment variable REGISTRY_STORAGE_S3_SECRET_KEY: registry.storage.s3.secret: there is no such key"},
		{environ: []string{"REGISTRY_REDIS_PASSWORD={hunter2"}, want: "environment variable REGISTRY_REDIS_PASSWORD: no YAML"},
		// What belongs together.
		{section: `storage: {cache: {blobdescriptor: redis}}`, want: "registry.storage.cache.blobdescriptor: redis needs registry.redis.addrs"},
		{section: `storage: {filesystem: {}, s3: {bucket: b, region: eu-west-1, accesskey: hunter2, secretkey: hunter2}}`, want: "registry.storage.s3: is a second storage driver beside filesystem"},
		{section: `proxy: {username: u, password: hunter2}`, want: "registry.proxy.remoteurl: has no value"},
		{section: `redis: {password: hunter2}`, want: "registry.redis.addrs: has no value"},
		{section: `proxy: {remoteurl: "u:hunter2@h"}`, want: "registry.proxy.remoteurl: is no address like https://host/path"},
		// Replicas without a network.
		{section: `storage: {s3: {bucket: b, region: eu-west-1, accesskey: hunter2, secretkey: hunter2}}`, environ: bare, want: "registry.storage.s3: needs a network"},
		{section: `redis: {addrs: ["h:1"], password: hunter2}`, environ: bare, want: "registry.redis.addrs: needs a network"},
		{section: `proxy: {remoteurl: "https://u:hunter2@h"}`, environ: bare, want: "registry.proxy.remoteurl: needs a network"},
		// Secrets where none are expected.
		{section: `redis: {addrs: ["redis://:hunter2@h:6379"]}`, want: `registry.redis.addrs.0: "redis://(secret)@h:6379" is no HOST:PORT`},
		{section: `proxy: {remoteurl: "https://u:hunter2@h"}`, want: "registry.proxy.remoteurl: give who signs in as registry.proxy.username"},
		{section: `proxy: {remoteurl: "https://h", password:hunter2}`, want: "registry.proxy: has a key without a value"},
		{environ: []string{"REGISTRY_HTTP_SECRET=*hunter2"}, want: "environment variable REGISTRY_HTTP_SECRET: no YAML"},
		{environ: []string{"REGISTRY_HTTP_SECRET=!hunter2"}, want: "environment variable REGISTRY_HTTP_SECRET: registry.http.secret: tags are not read here"},
		// Not YAML.
		{section: "http:\n\tsecret: hunter2", want: "c.yaml: no YAML: line 3"},
		{section: "redis:\n    addrs: ['h:1']\n    password:hunter2", want: "c.yaml: no YAML: line 4"},
		{section: `redis: {password: @hunter2}`, want: "c.yaml: no YAML"},
		{section: `redis: {password: *hunter2}`, want: "c.yaml: no YAML: anchors and aliases are not read here: put what begins with * in quotes"},
	} {
		code, printed := trustcast(t, "registry:\n  "+c.section+"\n", c.environ, "server", "--init", "--domain", "localhost")
		if code != 2 || !strings.Contains(printed, c.want) || strings.Contains(printed, "goroutine") {
			t.Errorf("%s %q: exit code %d, want 2 and %q:\n%s", c.section, c.environ, code, c.want, printed)
		}
		if strings.Contains(printed, planted) {
			t.Errorf("%s %q: a secret is in the error:\n%s", c.section, c.environ, printed)
		}
	}
}
