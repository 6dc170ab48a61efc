package contract

import (
	"bufio"
	"context"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/test/images"
)

// forged is what a client may say about itself.
var forged = []string{
	"X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "evil", "X-Forwarded-For", "evil", "X-Forwarded-Prefix", "/evil",
	"Forwarded", "host=evil.test;proto=evil", "X-Real-Ip", "evil", "Connection", "X-Forwarded-Host, X-Forwarded-Proto",
}

// What a client says about itself does not get into the registry's answers, nor to
// the registry at all.
func TestForgedForwarding(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.onward(s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, forged...))

		got := s.arrives(append([]string{"X-Mine", "said by the client"}, forged...)...)
		for name, want := range map[string]string{
			"X-Mine":           "said by the client", // the control: what a client says is seen
			"X-Forwarded-Host": s.domain, "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1",
			"X-Forwarded-Prefix": "", "Forwarded": "", "X-Real-Ip": "", "Authorization": "",
		} {
			if said := strings.Join(got.Values(name), ", "); said != want {
				t.Errorf("%s arrives as %q, want %q", name, said, want)
			}
		}
		for name, values := range got {
			if strings.Contains(strings.Join(values, " "), "evil") {
				t.Errorf("%s arrives as %q", name, values)
			}
		}
	})
}

// arrives sends a request with these headers and returns those that got to the
// engine. Afterwards the registry is another.
func (s *site) arrives(header ...string) http.Header {
	s.t.Helper()
	if s.engine == "docker" {
		s.must("upgrade", images.Spy(s.t))
		_, text := s.do(http.MethodGet, "/v2/spy/header", nil, header...)
		got, err := textproto.NewReader(bufio.NewReader(strings.NewReader(text + "\r\n"))).ReadMIMEHeader()
		must(s.t, err)
		return http.Header(got)
	}
	s.end()
	engine, err := registry.NewEmbedded(s.t.Context(), registry.EmbeddedConfig{Root: s.cfg.DataDir})
	must(s.t, err)
	w := &witness{Embedded: engine}
	s.cfg.Engine = w
	s.start()
	s.want(http.StatusOK, http.MethodGet, "/v2/", nil, header...)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// witness is the embedded engine, and remembers what came to it.
type witness struct {
	*registry.Embedded

	mu   sync.Mutex
	last http.Header // guarded by mu
}

// Open returns a replica that notes each request's header, then answers it.
func (w *witness) Open(ctx context.Context, image string) (registry.Endpoint, error) {
	replica, err := w.Embedded.Open(ctx, image)
	answers := replica.Handler
	replica.Handler = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.last = r.Header.Clone()
		w.mu.Unlock()
		answers.ServeHTTP(out, r)
	})
	return replica, err
}
