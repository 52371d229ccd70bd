// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signer signs tokens with one algorithm, and checks them.
type signer struct {
	algorithm jose.SignatureAlgorithm
	public    crypto.PublicKey
	signer    jose.Signer
}

func newECDSASigner() (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return newSigner(jose.ES384, key)
}

func newRSASigner() (*signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return newSigner(jose.RS256, key)
}

func newSigner(algorithm jose.SignatureAlgorithm, key crypto.Signer) (*signer, error) {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, err
	}
	return &signer{algorithm: algorithm, public: key.Public(), signer: s}, nil
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
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{s.algorithm})
	if err != nil {
		return nil, errors.New("the token is no JWT")
	}
	var claims jwt.Claims
	if err := parsed.Claims(s.public, &claims); err != nil {
		return nil, errors.New("the token's signature is wrong")
	}
	if claims.Expiry == nil || !time.Now().Before(claims.Expiry.Time()) {
		return nil, errors.New("the token has expired")
	}
	return &claims, nil
}
