package registry

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// The registry that a mirror is of may be silent: neither the server's start nor its
// end waits for it.
func TestMirrorOfSilence(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	must(t, err)
	defer func() { must(t, lis.Close()) }()
	s := given(t, "proxy: {remoteurl: 'http://"+lis.Addr().String()+"'}")
	e, err := NewEmbedded(t.Context(), EmbeddedConfig{Root: t.TempDir(), Parameters: s})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := e.Open(ctx, ""); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "registry.proxy.remoteurl") {
		t.Errorf("opened a mirror of silence: %v", err)
	}
}
