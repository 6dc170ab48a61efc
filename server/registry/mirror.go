package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/distribution/distribution/v3/configuration"
)

// errLate is no context.DeadlineExceeded, which would be that of whoever asked for a
// replica.
var errLate = fmt.Errorf("nothing came within %v", answerWithin)

// newMirror is newApp for a mirror, which is given up when ctx ends or the registry
// that it is of does not answer in time.
func newMirror(ctx context.Context, c *configuration.Configuration) (*embeddedApp, error) {
	if err := reach(ctx, c); err != nil {
		return nil, err
	}
	patient, cancel := context.WithTimeoutCause(ctx, answerWithin, errLate)
	defer cancel()
	type result struct {
		app *embeddedApp
		err error
	}
	made := make(chan result)
	// Distribution asks that registry once more, with nothing that could end the
	// question, and its client is the process's. So this may outlive the call, for as
	// long as the other side holds the connection: nobody waits for it, and it holds
	// nothing that anybody needs. reach keeps them few: a registry that stays silent is
	// not asked again.
	go func() {
		app, err := newApp(ctx, c)
		select {
		case made <- result{app, err}:
		case <-patient.Done():
			if app != nil {
				_ = app.Shutdown() // it has served nothing
			}
		}
	}()
	select {
	case m := <-made:
		return m.app, m.err
	case <-patient.Done():
		return nil, silent(c, context.Cause(patient))
	}
}

// reach asks the registry that a mirror is of, as distribution does when it starts:
// there without a limit, and what it has begun by then stays when nobody answers.
func reach(ctx context.Context, c *configuration.Configuration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, errLate)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Proxy.RemoteURL+"/v2/", nil)
	if err != nil {
		return fmt.Errorf("registry.proxy.remoteurl: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		return resp.Body.Close()
	}
	err = errors.Unwrap(err) // of the URL, which silent has
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return silent(c, err)
}

// silent says what it means that the registry of a mirror gave no answer.
func silent(c *configuration.Configuration, err error) error {
	return fmt.Errorf("%s of registry.proxy.remoteurl does not answer, and a mirror asks it before it serves: %w", c.Proxy.RemoteURL, err)
}
