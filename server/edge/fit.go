package edge

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/internal/printable"
)

const (
	// maxAnswerHeader bounds the header of an endpoint's answer (bytes). A registry
	// may repeat a request's path, which is three times as long when it is escaped.
	maxAnswerHeader = 4 * maxHeader
	// maxInformational is how many 1xx may come before an answer; no registry sends
	// any, and each would bring a header of its own.
	maxInformational = 5
	// tellEvery is how often the log says that an endpoint's answers are withheld.
	tellEvery = time.Minute
)

// unfit is an answer that no client may get from an endpoint. That says nothing of
// its health, or whoever has a password could take endpoints out: a mirror passes on
// what the registry behind it says, and any registry the Host that its client sent.
type unfit struct{ why string }

// Error says what is wrong with it.
func (u *unfit) Error() string { return u.why }

// fit takes from an answer what would act on more than this request: clients take
// it for the word of the edge, to which they send passwords. An error is an *unfit.
func fit(answer *http.Response, from Endpoint) error {
	if answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusProxyAuthRequired {
		return &unfit{"it asks for a sign-in of its own; a mirror does when the registry behind it refuses registry.proxy.username and registry.proxy.password"}
	}
	for name, values := range answer.Header {
		if signsIn(name) || originWide(name) && !slices.Equal(values, from.Header[name]) {
			delete(answer.Header, name)
		}
	}
	answer.Trailer = nil // no registry sends any
	return leadsHome(answer, from)
}

// leadsHome keeps what an answer refers its client to at the edge, but for reads that
// may be sent to a storage.
func leadsHome(answer *http.Response, from Endpoint) error {
	redirect := answer.StatusCode >= 300 && answer.StatusCode < 400 && !isWrite(answer.Request)
	if places, ok := answer.Header["Location"]; ok {
		place := places[0]
		if !redirect || !from.Redirects {
			own, err := ownPlace(place, answer.Request)
			if err != nil {
				return err
			}
			place = own
		}
		answer.Header.Set("Location", place)
	}
	if links, ok := answer.Header["Link"]; ok && !slices.Equal(links, from.Header["Link"]) {
		own, err := ownLink(links[0], answer.Request)
		if err != nil {
			return err
		}
		answer.Header.Set("Link", own)
	}
	return nil
}

// signsIn says whether a header (in canonical form) is about signing in, which is
// the edge's alone.
func signsIn(name string) bool {
	switch name {
	case "Www-Authenticate", "Proxy-Authenticate", "Authentication-Info", "Proxy-Authentication-Info":
		return true
	}
	return false
}

// originWide says whether a header is about more than its answer, or leads a browser
// away: only the operator may send it, by registry.http.headers.
func originWide(name string) bool {
	switch name {
	case "Set-Cookie", "Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "Refresh",
		"Public-Key-Pins", "Nel", "Report-To", "Reporting-Endpoints", "Service-Worker-Allowed":
		return true
	}
	return strings.HasPrefix(name, "Access-Control-")
}

// ownPlace returns a location at the name that the client used: any path there, or
// what another name has below /v2/. What is relative stays so.
func ownPlace(location string, r *http.Request) (string, error) {
	at, err := url.Parse(location)
	host := r.Header.Get("X-Forwarded-Host") // as forward made it
	switch {
	case err != nil, !strings.HasPrefix(at.Path, "/"), strings.HasPrefix(at.Path, "//"),
		at.Host != host && at.Host+at.Scheme != "" && !strings.HasPrefix(at.Path, "/v2/"):
		return "", leads(location)
	}
	own := url.URL{Path: at.Path, RawPath: at.RawPath, RawQuery: at.RawQuery}
	if at.Host+at.Scheme == "" || host == "" {
		return own.String(), nil
	}
	return r.Header.Get("X-Forwarded-Proto") + "://" + host + own.String(), nil
}

// ownLink does the same for the one link of an answer, which leads to the next page.
func ownLink(link string, r *http.Request) (string, error) {
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.HasPrefix(link, "<") || strings.Contains(rest, "<") {
		return "", leads(link)
	}
	own, err := ownPlace(target, r)
	return "<" + own + ">" + rest, err
}

// leads is about an answer that leads clients elsewhere. A query may sign for access,
// and stays out of logs.
func leads(to string) *unfit {
	to, _, _ = strings.Cut(to, "?")
	return &unfit{fmt.Sprintf("it leads clients to %q", printable.Clip(to, maxSaid))}
}

// withhold refuses in place of an answer that is not fit.
func (e *Edge) withhold(t turn, err *unfit) *refusal {
	if e.balance.tell(t, time.Now()) {
		e.cfg.Log.Warn("an answer of an endpoint of the registry was withheld from its client", "endpoint", t.ID, "err", err.why)
	}
	return &refusal{http.StatusBadGateway, "UNAVAILABLE", "unfit", fmt.Sprintf("the answer of the registry's %s was withheld: %s; tell whoever runs the registry, whose log has it", t.ID, err.why), 0}
}

// tell says whether it is time to tell of an endpoint's answers.
func (b *balance) tell(t turn, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(t.told) < tellEvery {
		return false
	}
	t.told = now
	return true
}

// informed counts the 1xx before an answer; an error gives the endpoint up.
func (a *attempt) informed() error {
	if a.informational.Add(1) > maxInformational {
		return errors.New("it sends one informational answer after the other")
	}
	return nil
}
