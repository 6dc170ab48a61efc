package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	distribution = "github.com/distribution/distribution/v3"

	user     = "ci"
	password = "correct-horse-battery"
)

// grpcAddress finds where agents reach a server in what it said.
var grpcAddress = regexp.MustCompile(`what=grpc address=(\S+)`)

// contender is a registry under measurement.
type contender struct {
	*process
	target // of GET /v2/
	data   string
}

// trustcast starts ours with one user and the embedded engine. A name without a port
// in it would be :443, and the port is the kernel's choice: nobody reaches it by name.
func (l *lab) trustcast(ctx context.Context, flags ...string) (*contender, error) {
	return l.trustcastAt(ctx, "localhost:5000", "127.0.0.1:0", flags...)
}

// trustcastAt is trustcast for a domain, listening at an address.
func (l *lab) trustcastAt(ctx context.Context, domain, listen string, flags ...string) (*contender, error) {
	program, err := l.program(ctx, "trustcast")
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(l.dir, "ours-")
	if err != nil {
		return nil, err
	}
	if _, err := output(ctx, strings.NewReader(password), program, "init", "--domain", domain, "--user", user, "--password-stdin", "--data-dir", data); err != nil {
		return nil, err
	}
	p, err := l.start("trustcast", program, nil, append([]string{"server", "--data-dir", data,
		"--listen", listen, "--grpc-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--http-listen", "off", "--min-free", "0"}, flags...)...)
	if err != nil {
		return nil, err
	}
	var address string
	err = p.until(ctx, "serving", func() bool {
		found := regexp.MustCompile(`what=registry address=(\S+)(?s:.*)msg=serving`).FindStringSubmatch(p.said())
		if found != nil {
			address = found[1]
		}
		return found != nil
	})
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(data + "/certs/ca.crt")
	if err != nil {
		return nil, err
	}
	return &contender{p, target{address: address, roots: pool(ca), path: "/v2/", user: user, password: password}, data}, nil
}

func pool(ca []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(ca)
	return p
}

// htpasswd writes dir/htpasswd with our user and bcrypt of our cost, 10.
func (l *lab) htpasswd(ctx context.Context, dir string) error {
	program, err := l.program(ctx, "trustcast")
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir+"/users", 0o700); err != nil {
		return err
	}
	if _, err := output(ctx, strings.NewReader(password), program, "init", "--domain", "localhost:5000", "--user", user, "--password-stdin", "--data-dir", dir+"/users"); err != nil {
		return err
	}
	return os.Rename(dir+"/users/auth/htpasswd", dir+"/htpasswd")
}

// registry3 starts the official registry, with its own TLS, and with sign-in by bcrypt
// at each request or without any.
func (l *lab) registry3(ctx context.Context, signsIn bool) (*contender, error) {
	program, err := l.module(ctx, distribution, "", distribution+"/cmd/registry")
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(l.dir, "registry-")
	if err != nil {
		return nil, err
	}
	ca, err := serverPair(data)
	if err != nil {
		return nil, err
	}
	address, err := free()
	if err != nil {
		return nil, err
	}
	config := registryConfig(data+"/data", address, data)
	t := target{address: address, roots: pool(ca), path: "/v2/"}
	if signsIn {
		if err := l.htpasswd(ctx, data); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("auth: {htpasswd: {realm: bench, path: %s/htpasswd}}\n", data)
		t.user, t.password = user, password
	}
	if err := os.WriteFile(data+"/config.yml", []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := l.start("registry-3", program, []string{"OTEL_TRACES_EXPORTER=none"}, "serve", data+"/config.yml")
	if err != nil {
		return nil, err
	}
	return &contender{p, t, data}, p.listens(ctx, address)
}

// registryConfig is the official registry's, with the TLS pair of a directory.
func registryConfig(data, address, pair string) string {
	return fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s}, delete: {enabled: true}}
http: {addr: "%[2]s", secret: bench, tls: {certificate: %[3]s/tls.crt, key: %[3]s/tls.key}}
`, data, address, pair)
}

// serverPair writes tls.crt and tls.key for localhost, of a CA of its own: ECDSA as
// ours, and clients look at the CA's signature, too.
func serverPair(dir string) (ca []byte, err error) {
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	issuerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issuerDER, err := x509.CreateCertificate(rand.Reader, issuer, issuer, issuerKey.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuerDER}), errors.Join(
		os.WriteFile(dir+"/tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(dir+"/tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// push pushes an image as bench/image:v1.
func (c *contender) push(ctx context.Context, image v1.Image) error {
	ref, err := name.ParseReference("localhost/bench/image:v1")
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: c.roots, ServerName: "localhost"}
	transport.ForceAttemptHTTP2 = false
	defer transport.CloseIdleConnections()
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(redirected{transport, c.address})}
	if c.user != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: c.user, Password: c.password}))
	}
	return remote.Write(ref, image, options...)
}

// redirected asks the contender whatever the name in the URL.
type redirected struct {
	http.RoundTripper
	address string
}

// RoundTrip asks it.
func (r redirected) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "https", r.address, "localhost"
	return r.RoundTripper.RoundTrip(out)
}

// at is the contender's target for another path.
func (c *contender) at(path, accept string) target {
	t := c.target
	t.path, t.accept = path, accept
	return t
}

// accepted is what Docker says that it takes.
var accepted = strings.Join([]string{
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
}, ", ")

// megabytes is a figure of bytes in MiB.
func megabytes(n float64) float64 { return n / (1 << 20) }

// layerOf is the digest of an image's first layer.
func layerOf(image v1.Image) (string, error) {
	layers, err := image.Layers()
	if err != nil {
		return "", err
	}
	d, err := layers[0].Digest()
	return d.String(), err
}

// nginx serves a file over TLS, as the limit of what a registry could do.
func (l *lab) nginx(ctx context.Context, content io.Reader) (*contender, error) {
	if err := l.debian(ctx, map[string]string{"nginx-light": "nginx"}); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "nginx-")
	if err != nil {
		return nil, err
	}
	ca, err := serverPair(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir+"/root", 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(dir + "/root/blob")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(file, content); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	address, err := free()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`daemon off; master_process off; user root;
pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen %[2]s ssl; ssl_certificate %[1]s/tls.crt; ssl_certificate_key %[1]s/tls.key; ssl_protocols TLSv1.3; root %[1]s/root; }
}
`, dir, address)
	if err := os.WriteFile(dir+"/nginx.conf", []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := l.start("nginx", "/usr/sbin/nginx", nil, "-c", dir+"/nginx.conf", "-e", dir+"/error.log")
	if err != nil {
		return nil, err
	}
	return &contender{p, target{address: address, roots: pool(ca), path: "/blob"}, dir}, p.listens(ctx, address)
}
