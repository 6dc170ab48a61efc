package registry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/distribution/distribution/v3/configuration"
)

// reach asks the registry that a mirror is of, as distribution does when it starts:
// there without a limit, and what it has begun by then stays when nobody answers.
func reach(ctx context.Context, c *configuration.Configuration) error {
	if c.Proxy.RemoteURL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Proxy.RemoteURL+"/v2/", nil)
	if err != nil {
		return fmt.Errorf("registry.proxy.remoteurl: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the registry of registry.proxy.remoteurl does not answer, and a mirror asks it before it serves: %w", err)
	}
	return resp.Body.Close()
}
