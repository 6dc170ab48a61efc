package registry

import (
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
)

// explain says what failed at the engine, why, and what to do next. nil stays nil.
func explain(err error, what string) error {
	if err == nil {
		return nil
	}
	next := ""
	text := err.Error()
	switch {
	case unreachable(err) && strings.Contains(text, "permission denied"), cerrdefs.IsPermissionDenied(err):
		next = "run the server as root or as a member of the engine's group (docker)"
	case unreachable(err):
		next = "start the engine, or say with DOCKER_HOST where it is"
	case strings.Contains(text, "no space left on device"):
		next = "the engine's disk is full: free space (`docker system df` says what has it)"
	case cerrdefs.IsInvalidArgument(err) && strings.Contains(text, "reference format"):
		next = "an image is named like registry:3 or registry.example.com/team/registry:3"
	}
	if next == "" {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %s", what, trimmed{err}, next)
}

// trimmed shows an error without the full stop or question mark at its end.
type trimmed struct{ error }

func (t trimmed) Error() string { return strings.TrimRight(t.error.Error(), ".?") }
func (t trimmed) Unwrap() error { return t.error }
