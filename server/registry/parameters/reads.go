package parameters

import (
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
)

// answered are headers that an answer has anyway.
var answered = []string{"Content-Type", "Content-Length", "Content-Encoding", "Cache-Control", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Etag", "Last-Modified"}

// PlainReads says whether what the registry does with a read of a manifest or a blob
// is all in its files, so that it may be answered from them: nobody is told of it, it
// is not logged, redirected, mirrored, or refused for failing health. headers are
// those that each answer has.
func (s *Set) PlainReads() (headers http.Header, plain bool) {
	c, err := decode(s.root)
	if err != nil { // Parse has read it
		return nil, false
	}
	checks := c.Health.StorageDriver.Enabled || len(c.Health.FileCheckers)+len(c.Health.HTTPCheckers)+len(c.Health.TCPCheckers) > 0
	switch {
	case s.driver() != filesystem, c.Proxy.RemoteURL != "", len(c.Notifications.Endpoints) > 0, len(c.Middleware) > 0, checks, s.logsReads(c):
		return nil, false
	}
	headers = operators(c)
	for _, name := range answered {
		if headers[name] != nil {
			return nil, false // what becomes of both is distribution's business
		}
	}
	return headers, true
}

// operators are the headers that the operator gave for all answers, as clients get them.
func operators(c *configuration.Configuration) http.Header {
	headers := http.Header{}
	for name, values := range c.HTTP.Headers {
		for _, v := range values {
			headers.Add(name, strings.TrimSpace(v))
		}
	}
	return headers
}

// logsReads says whether the registry's log has a line for each request.
func (s *Set) logsReads(c *configuration.Configuration) bool {
	return s.opts.docker() && !c.Log.AccessLog.Disabled || c.Log.Level == "info" || c.Log.Level == "debug"
}

// Answers says what the answers of a replica may have that a plain registry's do not:
// the operator's headers, and redirects to a storage that clients reach.
func (s *Set) Answers() (headers http.Header, redirects bool) {
	c, err := decode(s.root)
	if err != nil { // Parse has read it
		return nil, false
	}
	far := s.driver() != filesystem && s.driver() != "inmemory" || len(c.Middleware["storage"]) > 0
	return operators(c), far && !s.flag("storage.redirect.disable")
}
