// Package plain makes what a plain registry has, for tests: pairs as openssl and
// people make them, and the layout of its data. No program imports it.
package plain

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Pair is what a plain registry serves, and what its hosts trust, in PEM.
type Pair struct {
	// CA is ca.crt, Cert is domain.crt, Key is domain.key.
	CA, Cert, Key []byte
	// Leaf is the first certificate of Cert.
	Leaf *x509.Certificate
}

// Options of a pair. The zero value is valid from a day before now on for 100 days.
type Options struct {
	Now  time.Time
	Life time.Duration
	// Change alters the leaf before it is signed.
	Change func(*x509.Certificate)
	// CommonNameOnly leaves subjectAltName out.
	CommonNameOnly bool
}

func (o Options) template(names []string) *x509.Certificate {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Life == 0 {
		o.Life = 100 * 24 * time.Hour
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(o.Now.UnixNano()), Subject: pkix.Name{CommonName: names[0], Organization: []string{"Example"}},
		NotBefore: o.Now.Add(-24 * time.Hour), NotAfter: o.Now.Add(o.Life),
	}
	if !o.CommonNameOnly {
		c.DNSNames = names
	}
	return c
}

// SelfSigned is an RSA leaf that is no CA and signed by itself, for these DNS names.
func SelfSigned(o Options, names ...string) (Pair, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return Pair{}, err
	}
	template := o.template(names)
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	if o.Change != nil {
		o.Change(template)
	}
	leaf, err := sign(template, template, key, key)
	if err != nil {
		return Pair{}, err
	}
	return pair([]*x509.Certificate{leaf}, []*x509.Certificate{leaf}, key)
}

// Company is an ECDSA leaf of a CA without constraints, with path length 0, whose key
// nobody has any more. intermediate puts one between a root and the leaf, served with it.
func Company(o Options, intermediate bool, names ...string) (Pair, error) {
	root, rootKey, err := ca(o, "Example Root", nil, nil)
	if err != nil {
		return Pair{}, err
	}
	issuer, issuerKey := root, rootKey
	served := []*x509.Certificate{}
	if intermediate {
		if issuer, issuerKey, err = ca(o, "Example Intermediate", root, rootKey); err != nil {
			return Pair{}, err
		}
		served = append(served, issuer)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template := o.template(names)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if o.Change != nil {
		o.Change(template)
	}
	leaf, err := sign(template, issuer, key, issuerKey)
	if err != nil {
		return Pair{}, err
	}
	return pair([]*x509.Certificate{root}, append([]*x509.Certificate{leaf}, served...), key)
}

func ca(o Options, name string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	o.Life += 10 * 365 * 24 * time.Hour // whatever the leaf has
	template := o.template([]string{name})
	template.DNSNames = nil
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	if parent == nil {
		parent, parentKey = template, key
	} else {
		template.MaxPathLenZero = true
	}
	cert, err := sign(template, parent, key, parentKey)
	return cert, key, err
}

func sign(template, parent *x509.Certificate, key, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func pair(cas, served []*x509.Certificate, key crypto.Signer) (Pair, error) {
	p := Pair{CA: encode(cas), Cert: encode(served), Leaf: served[0]}
	if k, ok := key.(*rsa.PrivateKey); ok { // as older openssl writes it
		p.Key = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
		return p, nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	p.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return p, err
}

func encode(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// Write lays a registry's data out under dir: the pair, and htpasswd unless it is
// empty, and a repository of that name unless it is "", without an image in it.
func Write(dir string, p Pair, htpasswd, repository string) error {
	files := map[string][]byte{"certs/ca.crt": p.CA, "certs/domain.crt": p.Cert, "certs/domain.key": p.Key}
	if htpasswd != "" {
		files["auth/htpasswd"] = []byte(htpasswd)
	}
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	if repository == "" {
		return nil
	}
	return os.MkdirAll(filepath.Join(dir, "docker", "registry", "v2", "repositories", filepath.FromSlash(repository), "_manifests"), 0o755)
}
