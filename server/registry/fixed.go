package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Fixed is an engine whose only replica is a handler of the caller's: for programs
// that bring their own registry, and for tests that are not about images. With a nil
// Handler everything is there and empty.
type Fixed struct{ Handler http.Handler }

var _ Engine = Fixed{}

// Name returns "fixed".
func (Fixed) Name() string { return "fixed" }

// Found returns none: a handler does not outlive its program.
func (Fixed) Found(context.Context, string) ([]Endpoint, error) { return nil, nil }

// Open returns the handler.
func (f Fixed) Open(context.Context, string) (Endpoint, error) {
	if f.Handler == nil {
		f.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}) // 200
	}
	return Endpoint{ID: f.Name(), Handler: f.Handler}, nil
}

// Close does nothing.
func (Fixed) Close(context.Context, string) error { return nil }

// Run waits for the end of ctx.
func (Fixed) Run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// Alive returns all of them.
func (Fixed) Alive(_ context.Context, ids []string) ([]string, error) { return ids, nil }

// Logs says that there are none.
func (Fixed) Logs(context.Context, string, int, bool, io.Writer) error {
	return fmt.Errorf("the engine %q keeps no log of its own: see the server's", Fixed{}.Name())
}
