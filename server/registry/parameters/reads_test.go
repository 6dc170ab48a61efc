package parameters

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Reads are answered from the files only where the registry would do nothing else
// with them.
func TestPlainReads(t *testing.T) {
	embedded, docker := Options{Engine: "embedded"}, Options{Engine: "docker", Replicas: 1, Network: true}
	for _, c := range []struct {
		text  string
		in    []Options
		plain bool
	}{
		{"", []Options{embedded, docker}, true},
		{"storage: filesystem", []Options{embedded, docker}, true},
		{"storage: {filesystem: {maxthreads: 50}, delete: {enabled: false}, cache: {blobdescriptor: inmemory}, redirect: {disable: true}}", []Options{embedded, docker}, true},
		{"notifications: {events: {includereferences: true}}", []Options{embedded, docker}, true},
		{"log: {level: warn}", []Options{embedded, docker}, true},
		{"log: {level: error}", []Options{embedded, docker}, true},
		{"loglevel: error", []Options{embedded, docker}, true},
		{"log: {accesslog: {disabled: true}}", []Options{embedded, docker}, true},
		{"health: {storagedriver: {enabled: false}}", []Options{embedded, docker}, true},

		{"notifications: {endpoints: [{name: ci, url: 'http://ci.test/', threshold: 1, backoff: 1s, timeout: 1s}]}", []Options{embedded, docker}, false},
		{"proxy: {remoteurl: 'http://peer.test'}", []Options{embedded, docker}, false},
		{"middleware: {storage: [{name: redirect, options: {baseurl: 'http://cdn.test'}}]}", []Options{embedded, docker}, false},
		{"health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}", []Options{embedded, docker}, false},
		{"health: {file: [{file: /down, interval: 10s}]}", []Options{embedded, docker}, false},
		{"health: {http: [{uri: 'http://peer.test', interval: 10s, timeout: 1s}]}", []Options{embedded, docker}, false},
		{"health: {tcp: [{addr: 'peer.test:1', interval: 10s, timeout: 1s}]}", []Options{embedded, docker}, false},
		{"log: {accesslog: {disabled: false}}", []Options{docker}, false},
		{"log: {level: info}", []Options{embedded, docker}, false},
		{"log: {level: debug}", []Options{embedded, docker}, false},
		{"loglevel: debug", []Options{embedded, docker}, false},
		{"storage: inmemory", []Options{embedded}, false},
		{"storage: {s3: {region: us-east-1, bucket: y}}", []Options{embedded, docker}, false},
		// Which of both would count is distribution's business.
		{"http: {headers: {etag: [x]}}", []Options{embedded, docker}, false},
		{"http: {headers: {Docker-Content-Digest: [x]}}", []Options{embedded, docker}, false},
		{"http: {headers: {X-A: [x], cache-control: [no-store]}}", []Options{embedded, docker}, false},
	} {
		for _, opts := range c.in {
			s, err := Parse([]byte(c.text), nil, opts)
			if err != nil {
				t.Errorf("%s, %q: %v", opts.Engine, c.text, err)
				continue
			}
			if _, plain := s.PlainReads(); plain != c.plain {
				t.Errorf("%s, %q: plain is %v, want %v", opts.Engine, c.text, plain, c.plain)
			}
		}
	}
}

// The operator's own headers are in each answer.
func TestPlainReadsHaveTheHeaders(t *testing.T) {
	for text, want := range map[string]http.Header{
		"http: {headers: {x-a: [a, b], X-B: [c]}}": {"X-A": {"a", "b"}, "X-B": {"c"}},
		"": {},
	} {
		headers, plain := parsed(t, text).PlainReads()
		if diff := cmp.Diff(want, headers); diff != "" || !plain {
			t.Errorf("%q: plain %v, headers (- want, + got)\n%s", text, plain, diff)
		}
	}
}
