// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signer signs tokens with one algorithm, and checks them.
type signer struct {
	public crypto.PublicKey
	signer jose.Signer
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
	return &signer{public: key.Public(), signer: s}, nil
}

// newClaims are a token's claims, with whole seconds for times. IAM's tokens say
// whose they are as IBM's do, in iam_id and account.bss; the platform's in sub, and
// their grant_type is made up: it tells them from the others.
func (s *Sim) newClaims(e endpoint, key string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	claims := map[string]any{
		"iss": "apic-sim",
		"sub": "user-" + s.KeyID(key),
		"iat": now.Unix(),
		"exp": now.Add(s.tokenTTL).Unix(),
		"jti": newID(),
	}
	state := s.keys[key]
	switch {
	case state == nil:
	case e.name == "iam":
		claims["iam_id"] = state.IAMID
		claims["account"] = map[string]any{"bss": state.AccountID}
	case e.name == platformName:
		claims["sub"] = userPath + state.IAMID
		claims["grant_type"] = "api_key"
	}
	return claims
}

// tokenClaims are what is read of a token.
type tokenClaims struct {
	jwt.Claims
	IAMID     string `json:"iam_id"`
	GrantType string `json:"grant_type"`
	Account   struct {
		ID string `json:"bss"`
	} `json:"account"`
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // It never fails; see crypto/rand.Read.
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

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

// verify returns the claims of a token that this signer signed and that has not
// expired by now.
func (s *signer) verify(now time.Time, parsed *jwt.JSONWebToken) (*tokenClaims, error) {
	var claims tokenClaims
	if err := parsed.Claims(s.public, &claims); err != nil {
		return nil, errors.New("the token's signature or a claim is wrong")
	}
	if claims.Expiry == nil {
		return nil, errors.New("the token has no expiry")
	}
	if !now.Before(claims.Expiry.Time()) {
		return nil, errors.New("the token has expired")
	}
	return &claims, nil
}
