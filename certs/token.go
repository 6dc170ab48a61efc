package certs

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	tokenVersion = "tc1"
	secretBytes  = 24 // 192 bits; DESIGN §7 asks for at least 128
	maxPins      = 8  // a control CA has one key; several while fleets merge
	maxToken     = 1024
)

// Token lets a new host join: who may come (ID and secret) and whom to trust
// (pins of the control CA). It is the only secret that people carry around.
type Token struct {
	// ID names the token in lists; public.
	ID string
	// Secret proves it; the server stores only its hash.
	Secret []byte
	// Pins are SPKI SHA-256 hashes of control CA keys, base64url.
	Pins []string
}

var tokenID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// NewToken makes a token with a random ID and secret.
func NewToken(pins ...string) (Token, error) {
	raw := make([]byte, 6+secretBytes)
	if _, err := rand.Read(raw); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	return Token{ID: hex.EncodeToString(raw[:6]), Secret: raw[6:], Pins: pins}, nil
}

// String returns tc1.<id>.<secret>.<pins>, the secret included.
func (t Token) String() string {
	return strings.Join([]string{tokenVersion, t.ID, base64.RawURLEncoding.EncodeToString(t.Secret), strings.Join(t.Pins, ",")}, ".")
}

// SecretHash is what the server keeps of a secret: SHA-256 in hex. The secret
// is random, so a slow hash would add nothing.
func SecretHash(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}

// SecretMatches compares a secret with a kept hash in constant time.
func SecretMatches(secret []byte, hash string) bool {
	return subtle.ConstantTimeCompare([]byte(SecretHash(secret)), []byte(hash)) == 1
}

// ParseToken reads a token as people paste it; errors never repeat the secret.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Token{}, errors.New("the join token is empty: make one with `trustcast token create` on the server")
	}
	parts := strings.Split(s, ".")
	if len(s) > maxToken || len(parts) != 4 || parts[0] != tokenVersion {
		return Token{}, errors.New("this is no join token: it looks like tc1.ID.SECRET.PIN and comes from `trustcast token create`; was it cut when copying?")
	}
	secret, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(secret) != secretBytes || !tokenID.MatchString(parts[1]) {
		return Token{}, errors.New("the join token is damaged: copy it again in full from `trustcast token create`")
	}
	t := Token{ID: parts[1], Secret: secret, Pins: strings.Split(parts[3], ",")}
	if len(t.Pins) > maxPins {
		return Token{}, fmt.Errorf("the join token has %d pins; at most %d are read", len(t.Pins), maxPins)
	}
	for i, pin := range t.Pins {
		raw, err := base64.RawURLEncoding.DecodeString(pin)
		if err != nil || len(raw) != sha256.Size {
			return Token{}, errors.New("the join token's pin is damaged: copy it again in full from `trustcast token create`")
		}
		// As Pin spells it: a line break from a terminal would match no key.
		t.Pins[i] = base64.RawURLEncoding.EncodeToString(raw)
	}
	return t, nil
}

// Pin returns the hash of a certificate's public key as it stands in tokens.
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
