package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// listener is an endpoint of notifications, which is out of order at first.
type listener struct {
	mu      sync.Mutex
	refused int
	events  []event
}

// outage is how many notifications the listener refuses before it takes one.
const outage = 2

// event is what a test looks at of distribution's.
type event struct {
	Action string `json:"action"`
	Target struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		Digest     string `json:"digest"`
		URL        string `json:"url"`
	} `json:"target"`
	Request struct {
		Addr string `json:"addr"`
		Host string `json:"host"`
	} `json:"request"`
}

const (
	listenerToken    = "Bearer the-listeners-token"
	listenerPassword = "the-listeners-password"
)

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused < outage || !slices.Contains(r.Header["Authorization"], listenerToken) {
		l.refused++
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	var envelope struct {
		Events []event `json:"events"`
	}
	if err := json.NewDecoder(r.Body).Decode(&envelope); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l.events = append(l.events, envelope.Events...)
}

// heard looks for an event about a tag.
func (l *listener) heard(action, repository, tag string) (event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Action == action && e.Target.Repository == repository && e.Target.Tag == tag {
			return e, nil
		}
	}
	return event{}, fmt.Errorf("no %s of %s:%s among %d events, %d refused", action, repository, tag, len(l.events), l.refused)
}

// Pushes and pulls are told to whom the operator wants, also when that was out of
// order for a while.
func TestNotifications(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			n, l := newNetwork(t, engine), &listener{}
			url := strings.Replace(n.serve(l).URL, "://", "://hook:"+listenerPassword+"@", 1)
			section := fmt.Sprintf(`notifications:
  endpoints:
    - {name: ci, url: '%s/hook', headers: {Authorization: ['%s']}, timeout: 5s, threshold: 100, backoff: 10ms, ignoredmediatypes: [application/octet-stream]}
`, url, listenerToken)
			s := open(t, engine, n.with(section))
			image := s.push("team/app:v1", 1000, 1)
			s.heard(l, "push", image)
			must(t, s.pull("team/app:v1", image))
			s.heard(l, "pull", image)
			s.keepsSecret("the-listeners-")
		})
	}
}

// heard waits for an event about team/app:v1, which must be the client's own.
func (s *site) heard(l *listener, action string, image v1.Image) {
	s.t.Helper()
	var e event
	s.until("the listener hears of the "+action, func() (err error) {
		e, err = l.heard(action, "team/app", "v1")
		return err
	})
	digest, err := image.Digest()
	must(s.t, err)
	if want := "https://" + s.domain + "/v2/team/app/manifests/" + digest.String(); e.Target.Digest != digest.String() || e.Target.URL != want {
		s.t.Errorf("%s of %s at %s, want %s", action, e.Target.Digest, e.Target.URL, want)
	}
	if e.Request.Host != s.domain || e.Request.Addr != "127.0.0.1" {
		s.t.Errorf("%s by a request of %s to %s", action, e.Request.Addr, e.Request.Host)
	}
}
