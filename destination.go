// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

// The rules here decide who may change where secrets go. Somebody who may write a
// config, and does not know its key, can send neither that key nor the tokens that
// are issued for it elsewhere, and cannot prepare the config for the next key.

// destination is where the key goes and where readers are told to send its tokens:
// what is in force, not what is stored.
type destination struct {
	service                  tokenservice.Kind
	region, tokenURL, apiURL string
	iamURL, caCert           string
}

func (c *config) destination() destination {
	return destination{c.TokenService, c.Region, c.tokenURL(), c.apiURL(), c.iamURL(), c.CACert}
}

// movesFrom says whether c sends secrets elsewhere than stored does, which is nil for a
// config that is created.
func (c *config) movesFrom(stored *config) bool {
	return stored != nil && c.destination() != stored.destination()
}

// destinationField is a field that is part of the destination. own says whether c,
// which is called name, has a value there that is not the default.
type destinationField struct {
	field string
	own   func(c *config, name string) bool
}

func destinationFields() []destinationField {
	return []destinationField{
		{"token_service", func(c *config, _ string) bool { return c.TokenService != tokenservice.Login }},
		{"region", func(c *config, name string) bool { return c.Region != defaultRegion(name) }},
		{"token_url", func(c *config, _ string) bool { return c.TokenURL != "" }},
		{"api_url", func(c *config, _ string) bool { return c.APIURL != "" }},
		{"iam_url", func(c *config, _ string) bool { return c.IAMURL != "" }},
		{"ca_cert", func(c *config, _ string) bool { return c.CACert != "" }},
	}
}

// destinationFieldNames are those fields' names.
func destinationFieldNames() (names []string) {
	for _, f := range destinationFields() {
		names = append(names, f.field)
	}
	return names
}

// listDestinationFields is for messages.
func listDestinationFields() string { return strings.Join(destinationFieldNames(), ", ") }

// requestFields are a request's fields, of which those are nil that a merge patch
// sets back to their defaults.
type requestFields map[string]any

// carries says that the request has a value for a field.
func (r requestFields) carries(field string) bool { return r[field] != nil }

// checkDestination refuses a candidate that would send a secret where its owner did
// not. stored is the config that the candidate replaces, or nil, and request is what
// the candidate was made with.
func checkDestination(name string, stored, candidate *config, request requestFields) error {
	if stored == nil {
		return nil
	}
	if candidate.movesFrom(stored) {
		if err := checkSecretsAreSentAgain(name, candidate, request); err != nil {
			return err
		}
	}
	if !sameSecret(stored.APIKey, candidate.APIKey) {
		return checkFieldsAreNamedAgain("api_key", name, candidate, request)
	}
	if candidate.ClientSecret != "" && !sameSecret(stored.ClientSecret, candidate.ClientSecret) {
		return checkFieldsAreNamedAgain("client_secret", name, candidate, request)
	}
	return nil
}

// checkSecretsAreSentAgain lets only those change the destination who know what is
// sent there. Somebody who makes a key up loses the stored one by that, but would
// have the stored client secret sent along, so that it has to be there too.
func checkSecretsAreSentAgain(name string, candidate *config, request requestFields) error {
	if !request.carries("api_key") {
		return fieldError("api_key", fmt.Sprintf("is required again when a write changes where the key and its tokens go (%s); to move a key that nobody has, as after a rotation, write endpoints/%s, which needs sudo", listDestinationFields(), name))
	}
	if candidate.ClientSecret != "" && !request.carries("client_secret") && !request.carries("credentials") {
		return fieldError("client_secret", fmt.Sprintf("is required again, by itself or in credentials, when a write changes where it goes (%s)", listDestinationFields()))
	}
	return nil
}

// checkFieldsAreNamedAgain refuses to send a secret that is new to the config where
// an earlier write said: somebody may have made that one, with a key made up, to
// wait for this one. A field that is named, with whatever value, is the choice of
// the secret's owner.
func checkFieldsAreNamedAgain(secret, name string, candidate *config, request requestFields) error {
	var unnamed []string
	for _, f := range destinationFields() {
		if f.own(candidate, name) && !request.carries(f.field) {
			unnamed = append(unnamed, f.field)
		}
	}
	if len(unnamed) == 0 {
		return nil
	}
	return fieldError(secret, fmt.Sprintf("is not the stored one, and %s, which earlier writes chose; name these fields again, with the values that you want: %s", candidate.whereItGoes(), strings.Join(unnamed, ", ")))
}

// whereItGoes is what a secret's owner should know of a destination. It completes a
// sentence about the secret.
func (c *config) whereItGoes() string {
	goes := "would be sent to " + hostOf(c.tokenURL())
	if iam := hostOf(c.iamURL()); c.IAMURL != "" && iam != hostOf(c.tokenURL()) {
		goes += " and " + iam
	}
	if c.apiURL() != "" {
		goes += ", its tokens to " + hostOf(c.apiURL())
	}
	return goes
}

// hostOf is the host of a URL that was checked, with its port if it names one.
func hostOf(checked string) string {
	u, err := url.Parse(checked)
	if err != nil {
		return ""
	}
	return u.Host
}

// originOf is the scheme, host and port of a URL that was checked.
func originOf(checked string) string {
	u, err := url.Parse(checked)
	if err != nil {
		return ""
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port)
}

// sameSecret takes the same time wherever two secrets of one length differ.
func sameSecret(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
