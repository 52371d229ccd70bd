// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signer signs tokens as the login service does, with ES384.
type signer struct {
	key    *ecdsa.PrivateKey
	signer jose.Signer
}

func newSigner() (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES384, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, err
	}
	return &signer{key: key, signer: s}, nil
}

// newClaims are a token's claims, with whole seconds for times.
func (s *Sim) newClaims(key string) map[string]any {
	s.mu.Lock()
	ttl := s.tokenTTL
	s.mu.Unlock()
	now := time.Now()
	return map[string]any{
		"iss": "apic-sim",
		"sub": "user-" + s.KeyID(key),
		"iat": now.Unix(),
		"exp": now.Add(ttl).Unix(),
		"jti": newID(),
	}
}

func newID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // It never fails; see crypto/rand.Read.
	return hex.EncodeToString(id)
}

// sign takes any claims, so that a fault can sign wrong ones.
func (s *signer) sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := s.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

func (s *signer) verify(token string) (*jwt.Claims, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES384})
	if err != nil {
		return nil, errors.New("the token is no JWT")
	}
	var claims jwt.Claims
	if err := parsed.Claims(s.key.Public(), &claims); err != nil {
		return nil, errors.New("the token's signature is wrong")
	}
	if claims.Expiry == nil || !time.Now().Before(claims.Expiry.Time()) {
		return nil, errors.New("the token has expired")
	}
	return &claims, nil
}
