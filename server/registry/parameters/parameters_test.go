package parameters

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func parsed(t *testing.T, text string, environ ...string) *Set {
	t.Helper()
	s, err := Parse([]byte(text), environ, Options{File: "f"})
	must(t, err)
	return s
}

func TestMistakes(t *testing.T) {
	docker := Options{File: "f", Engine: "docker"}
	for _, c := range []struct {
		text, environ string
		opts          Options
		want          string
	}{
		// The shape of the whole.
		{text: "storage: [", want: "f: no YAML"},
		{text: "- a", want: "f:1: registry: holds the registry's own configuration"},
		{text: "storage:\n  delete:\n    enabled: yess", want: `f:3: registry.storage.delete.enabled: "yess" is not true or false`},
		{text: "storage:\n  delte: {enabled: true}", want: "f:2: registry.storage.delte: neither a storage driver (filesystem, inmemory, s3, s3aws) nor a parameter (maintenance, cache, delete, redirect, tag)"},
		{text: "catalog:\n  maxentrys: 5", want: "f:2: registry.catalog.maxentrys: there is no such key; registry.catalog takes maxentries; did you mean maxentries?"},
		{text: "catalogue: 5", want: "f:1: registry.catalogue: there is no such key; registry takes "},
		{text: "catalog: {maxentries: many}", want: `registry.catalog.maxentries: "many" is not a whole number`},
		{text: "catalog: {maxentries: 1.5}", want: `registry.catalog.maxentries: "1.5" is not a whole number`},
		{text: "catalog: [5]", want: "registry.catalog: takes a section, and here is a list"},
		{text: "health: {file: {file: /x}}", want: "registry.health.file: takes a list, and here is a section"},
		{text: "health: {storagedriver: {interval: soon}}", want: "is not a duration: write it like 30s"},
		{text: "log: {level: loud}", want: "registry.log.level: invalid loglevel loud"},
		{text: "log: &a {level: info}\nhttp: *a", want: "f:2: registry.http: anchors and aliases are not read here"},
		{text: "log: {level: info}\nlog: {level: warn}", want: "f:2: registry.log: stands there twice"},
		{text: "version: 0.9", want: "registry.version"},
		{text: "redis: {addrs: ['a:1'], password:hunter2}", want: "f:1: registry.redis: has a key without a value that is none of "},
		{text: "nonsense:", want: "f:1: registry: has a key without a value that is none of "},
		// What trustcast owns.
		{text: "http:\n  addr: :5000", want: "f:2: registry.http.addr: is trustcast's own; trustcast listens for the registry: give --listen"},
		{text: "http: {tls: {certificate: /c}}", want: "registry.http.tls: is trustcast's own"},
		{text: "auth: {htpasswd: {realm: r, path: p}}", want: "registry.auth: is trustcast's own; trustcast signs users in: see 'trustcast user add'"},
		{text: "auth: none", want: "registry.auth: is trustcast's own"},
		{text: "storage: {filesystem: {rootdirectory: /data}}", want: "registry.storage.filesystem.rootdirectory: is trustcast's own; all data is in one place: give --data-dir"},
		{text: "log: {formatter: json}", want: "registry.log.formatter: is trustcast's own; the registry writes into trustcast's log: give --log-format"},
		{environ: "REGISTRY_HTTP_ADDR=:5000", want: "environment variable REGISTRY_HTTP_ADDR: registry.http.addr: is trustcast's own"},
		{environ: "REGISTRY_AUTH_HTPASSWD_PATH=/x", want: "environment variable REGISTRY_AUTH_HTPASSWD_PATH: registry.auth: is trustcast's own"},
		{environ: "REGISTRY_AUTH=htpasswd", want: "environment variable REGISTRY_AUTH: registry.auth"},
		{environ: "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/x", want: "environment variable REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: registry.storage.filesystem.rootdirectory"},
		{environ: "REGISTRY_CONFIGURATION_PATH=/x", want: "environment variable REGISTRY_CONFIGURATION_PATH: the registry's configuration is the registry section"},
		// Variables.
		{environ: "REGISTRY_STORAGE_DELETE_ENABLED=perhaps", want: `environment variable REGISTRY_STORAGE_DELETE_ENABLED: registry.storage.delete.enabled: "perhaps" is not true or false`},
		{environ: "REGISTRY_STORAGE_DELTE_ENABLED=true", want: "environment variable REGISTRY_STORAGE_DELTE_ENABLED: registry.storage.delte"},
		{environ: "REGISTRY_CATALOG_MAXENTRYES=1", want: "environment variable REGISTRY_CATALOG_MAXENTRYES: there is no MAXENTRYES in it; it takes MAXENTRIES; did you mean MAXENTRIES?"},
		{environ: "REGISTRY_CATALOGS_MAXENTRIES=1", want: "did you mean REGISTRY_CATALOG?"},
		{environ: "REGISTRY_CATALOG_MAXENTRIES_X=1", want: "no parts"},
		{environ: "REGISTRY_NOTIFICATIONS_ENDPOINTS_7_NAME=a", want: "7 is none of the list's numbers"},
		// What distribution would panic about, or do in silence.
		{text: "storage: {maintenance: {uploadpurging: often}}", want: "registry.storage.maintenance.uploadpurging: takes a section"},
		{text: "storage: {maintenance: {uploadpurging: {age: 0s}}}", want: "registry.storage.maintenance.uploadpurging.age: must be more than nothing"},
		{text: "storage: {maintenance: {readonly: true}}", want: "registry.storage.maintenance.readonly: takes a section"},
		{text: "storage: {redirect: {disable: 7}}", want: "registry.storage.redirect.disable"},
		{text: "storage: {tag: {concurrencylimit: -1}}", want: "registry.storage.tag.concurrencylimit: -1 is less than 0"},
		{text: "storage: {cache: {blobdescriptor: redis}}", want: "registry.storage.cache.blobdescriptor: redis needs registry.redis.addrs"},
		{text: "storage: {cache: {blobdescriptor: disk}}", want: `"disk" is no cache`},
		{text: "storage: {inmemory: , filesystem: }", want: "second storage driver"},
		{text: "storage: {inmemory: }", environ: "REGISTRY_STORAGE_S3_BUCKET=b", want: "environment variable REGISTRY_STORAGE_S3_BUCKET: registry.storage.s3: is a second storage driver beside inmemory"},
		{text: "storage: {azure: {container: c}}", want: "registry.storage.azure: the embedded registry has no storage driver azure"},
		{text: "storage: {s3: {bucket: b}}", want: "registry.storage.s3: no region parameter provided"},
		{text: "storage: {s3: {bucket: b, region: nowhere}}", want: "invalid region"},
		{text: "storage: {s3: {bukket: b}}", want: "registry.storage.s3.bukket: there is no such key"},
		{text: "storage: inmemory", opts: Options{Replicas: 2}, want: "registry.storage.inmemory: each of 2 replicas would have images of its own: give --replicas 1"},
		{text: "tags: {maxtags: -1}", want: "registry.tags.maxtags: -1 is less than 1"},
		{text: "http: {headers: {'X Y': [a]}}", want: "no name of a header"},
		{text: "notifications: {endpoints: [{name: a, url: 'ftp://x'}]}", want: "registry.notifications.endpoints.0.url: is no address"},
		{text: "redis: {addrs: [here]}", want: `registry.redis.addrs.0: "here" is no HOST:PORT`},
		{text: "redis: {addrs: ['a:1'], poolsize: -1}", want: "registry.redis.poolsize: -1 is not from 0"},
		{text: "redis: {addrs: ['a:1'], tls: {certificate: /nowhere, key: /nowhere}}", want: "registry.redis.tls.certificate: cannot be used"},
		{text: "health: {file: [{file: /a}, {file: /a}]}", want: "registry.health.file.1.file: \"/a\" is empty or checked twice"},
		{text: "health: {http: [{uri: x}]}", want: "registry.health.http.0.uri: is no address"},
		{text: "health: {tcp: [{addr: 'a:1', interval: -1s}]}", want: "registry.health.tcp.0.interval: -1s is less than nothing"},
		{text: "proxy: {username: u}", want: "registry.proxy.remoteurl: has no value"},
		{text: "proxy: {remoteurl: registry-1.docker.io}", want: "registry.proxy.remoteurl: is no address"},
		{text: "validation: {manifests: {urls: {allow: ['(']}}}", want: "registry.validation.manifests.urls.allow.0"},
		{text: `validation: {manifests: {urls: {deny: ['\Qa']}}}`, want: "registry.validation.manifests.urls.deny.0"},
		{text: "middleware: {storage: [{name: x}]}", want: "registry.middleware.storage.0.name"},
		{text: "middleware: {storage: [{name: redirect}]}", want: "registry.middleware.storage.0.options: distribution refuses them: no baseurl"},
		{text: "middleware: {repository: [{name: x}]}", want: "registry.middleware.repository"},
		// Secrets are in no error.
		{text: "http: {secret: [hunter2]}", want: "registry.http.secret: takes one value"},
		{text: "http: {secret: *hunter2}", want: "put what begins with * in quotes"},
		{text: "http:\n  secret: !hunter2", want: "f:2: registry.http.secret: tags are not read here: put what begins with ! in quotes"},
		{environ: "REGISTRY_HTTP_SECRET=*hunter2", want: "put what begins with * in quotes"},
		{environ: "REGISTRY_HTTP_SECRET=!hunter2", want: "put what begins with ! in quotes"},
		{text: "redis: {addrs: ['redis://:hunter2@h:6379']}", want: `registry.redis.addrs.0: "redis://(secret)@h:6379" is no HOST:PORT`},
		{text: "health: {tcp: [{addr: 'tcp://u:hunter2@h'}]}", want: `registry.health.tcp.0.addr: "tcp://(secret)@h" is no HOST:PORT`},
		{text: "health: {http: [{uri: 'https://u:hunter2@h'}, {uri: 'https://u:hunter2@h'}]}", want: "registry.health.http.1.uri: \"https://(secret)@h\" is empty or checked twice"},
		{text: "storage: {s3: {bucket: b, region: eu-west-1, accesskey: hunter2}}", want: "registry.storage.s3.secretkey: has no value: give both accesskey and secretkey, or neither"},
		{text: "storage: {s3: {bucket: b, region: eu-west-1, regionendpoint: 'http://u:hunter2@ x'}}", want: "registry.storage.s3.regionendpoint: is no address"},
		{text: "proxy: {remoteurl: 'https://u:hunter2@h'}", want: "registry.proxy.remoteurl: give who signs in as registry.proxy.username and registry.proxy.password"},
		{text: "proxy: {remoteurl: 'https://h/v2/'}", want: "registry.proxy.remoteurl: ends with its host: leave /v2/ out"},
		{text: "proxy: {remoteurl: 'https://h', username: u}", want: "registry.proxy.password: has no value: give both username and password, or neither"},
		{text: "proxy: {remoteurl: 'https://h', ttl: 1h}", opts: Options{File: "f", Engine: "docker", Network: true}, want: "registry.proxy.ttl: replicas write nothing beside the images"},
		// Replicas without a network.
		{text: "storage: {s3: {bucket: b, region: eu-west-1}}", opts: docker, want: "registry.storage.s3: needs a network, and replicas have none: give one with --registry-network NAME"},
		{text: "redis: {addrs: ['a:1']}", opts: docker, want: "registry.redis.addrs: needs a network"},
		{text: "notifications: {endpoints: [{name: a, url: 'https://x'}]}", opts: docker, want: "registry.notifications.endpoints: needs a network"},
		{text: "proxy: {remoteurl: 'https://x'}", opts: docker, want: "registry.proxy.remoteurl: needs a network"},
		{environ: "REGISTRY_PROXY_REMOTEURL=https://x", opts: docker, want: "environment variable REGISTRY_PROXY_REMOTEURL: registry.proxy.remoteurl: needs a network"},
	} {
		if c.opts.File == "" {
			c.opts.File = "f"
		}
		_, err := Parse([]byte(c.text), []string{c.environ, "HOME=/"}, c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %s:\n%v\nwant %q", c.text, c.environ, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is in the error %v", err)
		}
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := Parse([]byte("catalog: {maxentries: x}\ntags: {maxtags: y}"), nil, Options{})
	if err == nil || strings.Count(err.Error(), "whole number") != 2 {
		t.Error(err)
	}
}

func TestForeignVariablesAreWarnings(t *testing.T) {
	s := parsed(t, "", "REGISTRY_SERVICE_HOST=10.0.0.1", "REGISTRY_PORT_5000_TCP=tcp://x", "REGISTRY=x", "TRUSTCAST_X=y")
	if w := s.Warnings(); len(w) != 2 || !strings.Contains(w[0], "REGISTRY_PORT_5000_TCP is passed over") {
		t.Errorf("%q", w)
	}
}

// variables that distribution's own parser takes, and what the section says below.
var overlays = []struct{ text, variable string }{
	{"", "REGISTRY_CATALOG_MAXENTRIES=7"},
	{"", "REGISTRY_CATALOG={maxentries: 8}"},
	{"storage: {filesystem: {maxthreads: 30}, delete: {enabled: false}}", "REGISTRY_STORAGE_DELETE_ENABLED=true"},
	{"storage: {inmemory: {}}", "REGISTRY_STORAGE_TAG_CONCURRENCYLIMIT=3"},
	{"storage: {filesystem: {}}", "REGISTRY_STORAGE=inmemory"},
	{"storage: inmemory", "REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR=inmemory"},
	{"", "REGISTRY_LOG_ACCESSLOG_DISABLED=true"},
	{"", "REGISTRY_LOG_FIELDS_SERVICE=registry"},
	{"log: {fields: {service: a}}", "REGISTRY_LOG_FIELDS_SERVICE=b"},
	{"", "REGISTRY_HTTP_SECRET=12345"},
	{"", "REGISTRY_HTTP_SECRET=off"},
	{"", "REGISTRY_HTTP_RELATIVEURLS=yes"},
	{"", "REGISTRY_HTTP_HEADERS={X-A: [b]}"},
	{"", "REGISTRY_HEALTH_FILECHECKERS_0_FILE=/x"},
	{"health: {file: [{file: /a}, {file: /b}]}", "REGISTRY_HEALTH_FILECHECKERS_1_FILE=/c"},
	{"", "REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL=3s"},
	{"", "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_NAME=a"},
	{"", "REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES=true"},
	{"", "REGISTRY_REDIS_ADDRS=[a:1, b:2]"},
	{"", "REGISTRY_REDIS_TLS_KEY=/k"},
	{"", "REGISTRY_PROXY_TTL=1h"},
	{"", "REGISTRY_POLICY_REPOSITORY_CLASSES=[image]"},
	{"", "REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS=none"},
}

// Variables mean what they mean for distribution.
func TestVariablesAsDistributionReadsThem(t *testing.T) {
	for _, c := range overlays {
		name, value, _ := strings.Cut(c.variable, "=")
		t.Run(name, func(t *testing.T) {
			r := &reading{Set: &Set{opts: Options{File: "f"}, from: map[*yaml.Node]origin{}}, empty: map[*yaml.Node][]*yaml.Node{}}
			must(t, r.parse([]byte(c.text)))
			must(t, r.overlay([]string{c.variable}))
			must(t, r.shape())
			if r.driver() == "" {
				put(r.root, "storage.filesystem", mapping())
			}
			got, err := decode(r.root)
			must(t, err)

			t.Setenv(name, value)
			text := "version: 0.1\n" + c.text
			if !strings.Contains(c.text, "storage") {
				text += "\nstorage: filesystem"
			}
			want, err := configuration.Parse(strings.NewReader(text))
			must(t, err)
			if want.Log.Level == "info" {
				want.Log.Level = ""
			}
			got.Version = want.Version
			for _, c := range []*configuration.Configuration{got, want} {
				if c.Catalog.MaxEntries == pageSize {
					c.Catalog.MaxEntries = 0
				}
				c.Tags.MaxTags = 0
			}
			if diff := cmp.Diff(plain(t, want), plain(t, got)); diff != "" {
				t.Errorf("distribution's parser and ours differ (-theirs +ours):\n%s", diff)
			}
		})
	}
}

// plain makes configurations comparable: empty and nil are the same in them.
func plain(t *testing.T, c *configuration.Configuration) map[string]any {
	t.Helper()
	out := map[string]any{}
	v := reflect.ValueOf(*c)
	for f, field := range v.Fields() {
		if f.Name == "Storage" {
			continue
		}
		text, err := json.Marshal(field.Interface())
		must(t, err)
		out[f.Name] = string(text)
	}
	for name, parameters := range c.Storage {
		for key, value := range parameters {
			out["storage."+name+"."+key] = value
		}
		out["storage."+name] = true
	}
	return out
}

func TestShown(t *testing.T) {
	s := parsed(t, `storage:
  s3:
    bucket: b
    region: eu-west-1
    secretkey: hunter2
    accesskey: hunter2
http: {secret: hunter2}
proxy: {remoteurl: 'https://x', username: u, password: hunter2}
notifications:
  endpoints:
    - {name: n, url: 'https://u:hunter2@x', headers: {Authorization: [hunter2]}}
`, "REGISTRY_REDIS_PASSWORD=hunter2", "REGISTRY_REDIS_ADDRS=[a:1]", "REGISTRY_CATALOG_MAXENTRIES=5")
	text, err := json.Marshal(s.Shown())
	must(t, err)
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("a secret is shown: %s", text)
	}
	shown := map[string]Shown{}
	for _, v := range s.Shown() {
		shown[v.Key] = v
	}
	for _, want := range []Shown{
		{"registry.catalog.maxentries", "5", "environment", "REGISTRY_CATALOG_MAXENTRIES"},
		{"registry.storage.s3.bucket", "b", "file", "f:3"},
		{"registry.storage.s3.secretkey", hidden, "file", "f:5"},
		{"registry.storage.delete.enabled", "true", "default", ""},
		{"registry.redis.password", hidden, "environment", "REGISTRY_REDIS_PASSWORD"},
		{"registry.http.secret", hidden, "file", "f:7"},
	} {
		if got := shown[want.Key]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if !s.SecretsInFile() || parsed(t, "", "REGISTRY_HTTP_SECRET=x").SecretsInFile() {
		t.Error("SecretsInFile is wrong")
	}
}

// The log's level has an older name, too.
func TestLoglevel(t *testing.T) {
	for text, want := range map[string]string{"": "warn", "loglevel: debug": "debug", "loglevel: debug\nlog: {level: error}": "error"} {
		c, err := parsed(t, text).Configuration("/", "secret")
		must(t, err)
		if string(c.Log.Level) != want {
			t.Errorf("%q: %s, want %s", text, c.Log.Level, want)
		}
	}
}

func TestDefaultsAreShown(t *testing.T) {
	for _, v := range parsed(t, "").Shown() {
		if v.Origin != "default" {
			t.Errorf("%+v", v)
		}
	}
}

// What a replica of the image reads, by distribution's own parser.
func TestFile(t *testing.T) {
	for _, text := range []string{"", "storage: inmemory", "http: {secret: chosen, relativeurls: yes}\nlog: {level: debug, formatter: json}\nstorage: {cache: {blobdescriptor: inmemory}, redirect: }"} {
		s, err := Parse([]byte(text), nil, Options{Engine: "docker", Replicas: 1})
		must(t, err)
		file, err := s.File("/var/lib/registry", "0123e5", "/var/lib/registry/run/a.sock")
		must(t, err)
		c, err := configuration.Parse(strings.NewReader(string(file)))
		if err != nil {
			t.Fatalf("%v in\n%s", err, file)
		}
		secret := "0123e5"
		if strings.Contains(text, "chosen") {
			secret = "chosen"
		}
		if c.HTTP.Net != "unix" || c.HTTP.Addr != "/var/lib/registry/run/a.sock" || c.HTTP.Secret != secret || len(c.Auth) > 0 {
			t.Errorf("%+v in\n%s", c.HTTP, file)
		}
		if s.StorageDriver() == filesystem && c.Storage["filesystem"]["rootdirectory"] != "/var/lib/registry" {
			t.Errorf("the blobs are in %v", c.Storage)
		}
		c.Storage["filesystem"] = configuration.Parameters{"rootdirectory": t.TempDir()}
		delete(c.Storage, "inmemory")
		must(t, handlers.NewApp(t.Context(), c).Shutdown())
	}
}

// The reference tells of each key that is refused.
func TestReferenceNamesWhatIsOwned(t *testing.T) {
	text, err := os.ReadFile("../../../docs/reference/configuration.md")
	must(t, err)
	for _, o := range slices.Concat(ownKeys, embeddedOwned) {
		if !strings.Contains(string(text), "`"+keyPath(o.path)+"`") {
			t.Errorf("docs/reference/configuration.md does not name %s", keyPath(o.path))
		}
	}
}

// Where the registry may send reads, and which headers are the operator's.
func TestAnswers(t *testing.T) {
	const s3 = "s3: {bucket: b, region: eu-west-1}"
	for text, want := range map[string]bool{
		"":                      false,
		"storage: inmemory":     false,
		"storage: {" + s3 + "}": true,
		"storage: {" + s3 + ", redirect: {disable: true}}":                           false,
		"storage: {" + s3 + ", redirect: {disable: false}}":                          true,
		"middleware: {storage: [{name: redirect, options: {baseurl: 'https://x'}}]}": true,
	} {
		if _, redirects := parsed(t, text).Answers(); redirects != want {
			t.Errorf("%q: %v", text, redirects)
		}
	}
	headers, _ := parsed(t, "http: {headers: {access-control-allow-origin: [' * ', b]}}").Answers()
	if got := headers["Access-Control-Allow-Origin"]; !slices.Equal(got, []string{"*", "b"}) {
		t.Errorf("%q", headers)
	}
}
