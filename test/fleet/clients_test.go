//go:build linux

package fleet_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func (r *renewals) ended() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func (r *renewals) fail(who string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf("%s %s: %v", time.Now().UTC().Format(time.RFC3339Nano), who, err))
}

// did counts something, and keeps why it failed and what the lane had just done.
func (r *renewals) did(what string, l *lane, err error) {
	if err != nil {
		r.fail(what+" at "+l.domain, fmt.Errorf("%w\n%s", err, tail(l.server.log(), 6)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

// pullWithDocker goes from lane to lane.
func (r *renewals) pullWithDocker() {
	for n := 1; !r.ended(); n++ {
		l := r.lanes[n%len(r.lanes)]
		if n%dockerPulls == 0 {
			changed := fmt.Sprintf("%s %d", password, n)
			r.did("own passwords changed", l, l.setPassword("engine", changed))
			r.did("logins by Docker", l, r.host.login(l.domain, "engine", changed))
		}
		r.did("pulls by Docker", l, r.host.pull(l.image()))
	}
}

// pullWithGo goes through every fourth lane, from the first one given on, with a
// connection a request.
func (r *renewals) pullWithGo(first int) {
	current := map[*lane]string{}
	for n := 1; !r.ended(); n++ {
		l := r.lanes[(first+n*goClients)%len(r.lanes)]
		if current[l] == "" {
			current[l] = password
		}
		if n%goPulls == 0 {
			current[l] = fmt.Sprintf("%s %d", password, n)
			r.did("own passwords changed", l, l.setPassword(l.goUser(first), current[l]))
		}
		r.did("pulls by Go", l, r.pullOnce(l, l.goUser(first), current[l]))
	}
}

// goUser is the user of one Go client: nobody else changes its password.
func (l *lane) goUser(client int) string { return fmt.Sprintf("go-%d", client) }

// pullOnce reads every byte of the image; nothing is tried twice.
func (r *renewals) pullOnce(l *lane, user, password string) error {
	ref, err := name.NewTag(l.image())
	if err != nil {
		return err
	}
	client, err := l.client(r.host, r.see)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	img, err := remote.Image(ref, remote.WithTransport(client), remote.WithAuth(&authn.Basic{Username: user, Password: password}),
		remote.WithRetryPredicate(func(error) bool { return false }), remote.WithRetryStatusCodes())
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		body, err := layer.Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, body)
		if err := errors.Join(err, body.Close()); err != nil {
			return err
		}
	}
	return nil
}

// see remembers a leaf that was served.
func (r *renewals) see(s tls.ConnectionState) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaves[s.PeerCertificates[0].SerialNumber.String()] = true
	return nil
}

// changeGuests adds a user to a lane, signs in, removes it, and may not sign in
// any more; then it goes to the next lane.
func (r *renewals) changeGuests() {
	for n := 0; !r.ended(); n++ {
		l := r.lanes[n%len(r.lanes)]
		guest := fmt.Sprintf("guest-%d", n)
		r.did("users added", l, l.setPassword(guest, password))
		r.did("sign-ins", l, r.signIn(l, guest, http.StatusOK))
		_, err := l.server.command("user", "rm", guest)
		r.did("users removed", l, err)
		r.did("refusals", l, r.signIn(l, guest, http.StatusUnauthorized))
	}
}

func (r *renewals) signIn(l *lane, user string, want int) error {
	client, err := l.client(r.host, r.see)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, "https://"+l.domain+"/v2/", nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(user, password)
	resp, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != want {
		return fmt.Errorf("%s got %s, want %d", user, resp.Status, want)
	}
	return nil
}
