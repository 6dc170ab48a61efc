package direct_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/trustcast/trustcast/server/registry"
	"github.com/trustcast/trustcast/server/registry/direct"
	"github.com/trustcast/trustcast/server/registry/parameters"
)

// nowhere takes an answer.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

// BenchmarkReads compares a direct answer with the embedded engine's, without TLS,
// sign-in and network.
func BenchmarkReads(b *testing.B) {
	root := b.TempDir()
	p, err := parameters.Parse(nil, nil, parameters.Options{})
	if err != nil {
		b.Fatal(err)
	}
	e, err := registry.NewEmbedded(b.Context(), registry.EmbeddedConfig{Root: root, Parameters: p})
	if err != nil {
		b.Fatal(err)
	}
	replica, err := e.Open(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(replica.Handler)
	image, err := random.Image(16<<20, 1)
	if err != nil {
		b.Fatal(err)
	}
	ref, err := name.ParseReference(srv.Listener.Addr().String()+"/team/app:v1", name.Insecure)
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		b.Fatal(err)
	}
	srv.Close()
	digest, err := image.Digest()
	if err != nil {
		b.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		b.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		b.Fatal(err)
	}
	reads := direct.New(root, p)
	defer func() { _ = reads.Close() }()
	for what, path := range map[string]string{"tag": "manifests/v1", "digest": "manifests/" + digest.String(), "blob": "blobs/" + layer.String()} {
		r := httptest.NewRequest(http.MethodGet, "/v2/team/app/"+path, nil)
		r.Header.Set("Accept", ociManifest+", "+dockerManifest)
		if what == "blob" {
			r.Header.Set("Range", "bytes=0-4095")
		}
		b.Run(what+"/direct", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !reads.Answer(&nowhere{http.Header{}}, r) {
					b.Fatal("left to the engine")
				}
			}
		})
		b.Run(what+"/engine", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				replica.Handler.ServeHTTP(&nowhere{http.Header{}}, r)
			}
		})
	}
}
