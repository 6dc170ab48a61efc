package server

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/users"
)

// The parts of a plain registry's data, as paths in it.
const (
	imagesPart   = "docker/registry/v2"
	caPart       = "certs/ca.crt"
	certPart     = "certs/domain.crt"
	keyPart      = "certs/domain.key"
	htpasswdPart = "auth/htpasswd"
)

// pair is what the old registry serves.
type pair struct {
	certs.Adopted
	key crypto.Signer
}

// judge decides what becomes of the old files, for a registry of these names.
func (o *old) judge(cfg InitConfig, files oldFiles, names []certs.Name) error {
	var err error
	if o.users, err = users.ParseHtpasswd(files.htpasswd); err != nil {
		return err
	}
	if cfg.User != "" {
		for _, name := range o.users.Names() {
			if name == cfg.User {
				return fmt.Errorf("user %q is in auth/htpasswd and keeps its password: leave --user out", name)
			}
		}
	}
	o.result.Repositories, o.result.Users, o.result.Passed = files.repositories, o.users.Names(), o.users.Passed
	if cfg.Adopt.NewCA {
		return nil
	}
	if o.pair, err = parsePair(files, names[0].Host, cfg.now()); err != nil {
		return fmt.Errorf("%w; or give --new-ca: hosts get a new CA, and fail until each has joined", err)
	}
	o.result.Certificate, o.result.Issuer, o.result.Ends = o.pair.Leaf.Subject.String(), o.pair.Root.Subject.String(), o.pair.Ends()
	for _, n := range names[1:] {
		if o.pair.Leaf.VerifyHostname(n.Host) != nil {
			o.result.Without = append(o.result.Without, n.String())
		}
	}
	return nil
}

// parsePair reads the pair and finds what verifies it.
func parsePair(files oldFiles, host string, at time.Time) (*pair, error) {
	var missing []string
	for _, part := range []struct {
		name string
		data []byte
	}{{certPart, files.cert}, {keyPart, files.key}} {
		if part.data == nil {
			missing = append(missing, part.name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("there is no %s: copy what the old registry serves there, so that it goes on being served", strings.Join(missing, " and no "))
	}
	served, err := certs.ParsePEM(files.cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certPart, err)
	}
	var cas []*x509.Certificate
	if files.ca != nil {
		if cas, err = certs.ParsePEM(files.ca); err != nil {
			return nil, fmt.Errorf("%s: %w", caPart, err)
		}
	}
	adopted, err := certs.Adopt(served, cas, host, at)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (issuers are looked for in it and in %s)", certPart, err, caPart)
	}
	key, err := parsePrivateKey(files.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyPart, err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(adopted.Leaf.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", keyPart, certPart)
	}
	return &pair{adopted, key}, nil
}

// parsePrivateKey reads the first private key of a PEM file, in any of the shapes
// that openssl writes. The error never repeats its content.
func parsePrivateKey(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("it holds no private key in PEM")
		}
		var key any
		var err error
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errors.New("it is encrypted: write it in clear with `openssl pkey`")
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")):
			return nil, fmt.Errorf("its kind %q is not known: write it with `openssl pkey`", block.Type)
		default: // parameters, or certificates beside it
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("its private key does not parse")
		}
		return signer, nil
	}
}
