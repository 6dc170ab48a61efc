package edge

import (
	"cmp"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
)

// ServeHTTP answers one request: count, limit, sign in, have an endpoint answer.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.newcomers.known(connOf(r))
	out := newResponse(w, r)
	e.metrics.inFlight.Add(1)
	defer e.metrics.inFlight.Add(-1)
	defer func() { e.metrics.answered(r, out.code()) }()
	defer e.survive(out, r)

	if r.Body != nil && r.Body != http.NoBody {
		limited := *r // the server keeps the original
		limited.Body = newBody(r.Body, out.control)
		if adds(r) && e.space.minimum > 0 {
			out.body = &bounded{ReadCloser: limited.Body, space: &e.space}
			limited.Body = out.body
		}
		r = &limited
	}
	if r.URL.Path != "/v2" && !strings.HasPrefix(r.URL.Path, "/v2/") {
		http.NotFound(out, r)
		return
	}
	if !e.admit(out, r) {
		return
	}
	e.answer(out, r)
	e.clients.answered(r.RemoteAddr, out.code())
	out.limit.moveOn() // what net/http still holds back goes out now
}

// survive turns a panic of the engine into an answer, or into an aborted one
// when it has begun: other requests go on.
func (e *Edge) survive(out *response, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		e.cfg.Log.Error("the engine panicked", "method", r.Method, "path", r.URL.Path, "err", p, "stack", string(debug.Stack()))
		if out.status == 0 {
			refuse(out, http.StatusInternalServerError, "UNKNOWN", "internal error; the server's log has the details")
			return
		}
	}
	out.status = cmp.Or(out.status, http.StatusInternalServerError)
	panic(http.ErrAbortHandler)
}

// admit signs the request's user in, or answers with a refusal.
func (e *Edge) admit(out *response, r *http.Request) bool {
	size := 0
	for _, value := range r.Header["Authorization"] {
		size += len(value)
	}
	if size > maxAuthorization {
		refuse(out, http.StatusRequestHeaderFieldsTooLarge, "UNAUTHORIZED", "the Authorization header is too long")
		return false
	}
	user, password, _ := r.BasicAuth() // neither without the header
	from := networkOf(r.RemoteAddr)
	result, wait, err := e.signIn.check(r.Context(), from, user, password)
	if err != nil { // the client went away while it waited for its turn
		refuse(out, http.StatusServiceUnavailable, "UNAVAILABLE", "sign-in was interrupted: try again")
		return false
	}
	e.metrics.signIns.WithLabelValues(result).Inc()
	switch result {
	case remembered, accepted:
		return true
	case limited:
		e.sayLimited(from)
		guessed(wait).send(out)
		return false
	case refused:
		e.cfg.Log.Debug("sign-in refused", "user", user, "client", r.RemoteAddr)
	}
	out.Header().Set("WWW-Authenticate", `Basic realm="trustcast"`)
	refuse(out, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

// refuse answers with an error as the OCI distribution specification has it.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type oneError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail"`
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Content-Length") // of another answer that was not given
	w.WriteHeader(status)
	// A client that went away cannot be told.
	_ = json.NewEncoder(w).Encode(map[string][]oneError{"errors": {{Code: code, Message: message}}})
}

// forward returns the request as the engine gets it: without credentials, and
// with the edge's own word on where it came from. A client's word would end up
// in the engine's Location headers and logs.
func forward(r *http.Request) *http.Request {
	header := make(http.Header, len(r.Header)+3)
	for name, values := range r.Header {
		if !isOurs(name) {
			header[name] = values
		}
	}
	header.Set("X-Forwarded-Proto", "https")
	if r.Host != "" {
		header.Set("X-Forwarded-Host", r.Host)
	}
	if client, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		header.Set("X-Forwarded-For", client)
	}
	out := *r
	out.Header = header
	return &out
}

// forwarded are the headers that forward makes.
var forwarded = [...]string{"X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-For"}

// isOurs says whether a header (in canonical form) is between the client and the
// edge, or only the edge may set it.
func isOurs(name string) bool {
	switch name {
	case "Authorization", "Proxy-Authorization", "Forwarded", "X-Real-Ip", "Expect", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}
