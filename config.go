// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// configSchema is the version of the stored form of a config. A newer one is
	// refused and never rewritten.
	configSchema = 1

	defaultRequestTimeout = 10 * time.Second
	maxRequestTimeout     = time.Minute
	defaultMaxRetries     = 2
	mostRetries           = 10
	maxRefreshBefore      = 24 * time.Hour
	defaultGracePeriod    = 5 * time.Minute
	maxGracePeriod        = rotation.MaxGrace

	defaultIAMURL = "https://iam.cloud.ibm.com"

	maxNameLength = 128
	// maxCACertLength leaves room in a stored entry, of 1 MiB at most, for each replaced key to
	// have the bundle that it was made with.
	maxCACertLength = 64 << 10
)

// config is the stored form of config/<name>. Durations are nanoseconds. Its members, in
// this order, take 512 bytes, which is a size class: another order, or one more member, may
// take the next one, for each config in memory.
type config struct {
	// Schema stays first: see decodeConfig.
	Schema int `json:"schema"`
	// Keys are the API key in use and what else is known of the config's keys.
	Keys rotation.Record `json:"keys"`
	// APIKey is the value of the key in use, or of the one that a write brings.
	APIKey              string            `json:"-"`
	TokenService        tokenservice.Kind `json:"token_service"`
	Region              string            `json:"region,omitempty"`
	TokenURL            string            `json:"token_url,omitempty"`
	APIURL              string            `json:"api_url,omitempty"`
	ClientID            string            `json:"client_id,omitempty"`
	ClientSecret        string            `json:"client_secret,omitempty"`
	CACert              string            `json:"ca_cert,omitempty"`
	RequestTimeout      time.Duration     `json:"request_timeout"`
	MaxRetries          int               `json:"max_retries"`
	RefreshBefore       time.Duration     `json:"refresh_before,omitempty"`
	Cache               cacheMode         `json:"cache"`
	IAMURL              string            `json:"iam_url,omitempty"`
	Lease               bool              `json:"lease"`
	Renew               bool              `json:"renew"`
	RotationGracePeriod time.Duration     `json:"rotation_grace_period"`
	CreatedAt           time.Time         `json:"created_at"`
	UpdatedAt           time.Time         `json:"updated_at"`
	automatedRotation
	// KeySetAt is when the present key came, by a write or a rotation.
	KeySetAt     time.Time `json:"key_set_at"`
	LastRotated  time.Time `json:"last_vault_rotation,omitzero"`
	NextRotation time.Time `json:"next_vault_rotation,omitzero"`
	// RotationUntil is the end of the window that NextRotation is in, zero without one.
	RotationUntil time.Time `json:"rotation_until,omitzero"`
	// Revision is another one for each write, so that what was prepared while
	// another write happened is noticed.
	Revision string `json:"revision"`
}

func defaultConfig(now time.Time) *config {
	return &config{
		Schema:              configSchema,
		TokenService:        tokenservice.Login,
		RequestTimeout:      defaultRequestTimeout,
		MaxRetries:          defaultMaxRetries,
		Cache:               cacheShared,
		Renew:               true,
		RotationGracePeriod: defaultGracePeriod,
		CreatedAt:           now,
	}
}

// sameRevision says whether two configs come from the same write; nil is no config.
func sameRevision(a, b *config) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Revision == b.Revision
}

// replace completes c, which a write has made of stored, as the config that replaces it.
// stored is nil for a config that is created.
func (c *config) replace(name string, stored *config, now time.Time) error {
	if stored == nil {
		c.Keys = rotation.New(name, upstream.Secret(c.APIKey))
	} else {
		keys, err := stored.Keys.Import(upstream.Secret(c.APIKey), c.RotationGracePeriod)
		if err != nil {
			return fieldError("api_key", "cannot be imported: "+err.Error())
		}
		c.Keys = keys
	}
	if stored == nil || !sameSecret(stored.APIKey, c.APIKey) {
		c.KeySetAt, c.LastRotated = now, time.Time{}
		c.scheduleNext(now)
	} else if stored.automatedRotation != c.automatedRotation {
		c.scheduleNext(now)
	}
	c.UpdatedAt = now
	c.Revision = newRevision()
	return nil
}

// withKeys is the config after a step of a rotation.
func (c *config) withKeys(keys rotation.Record) *config {
	next := *c
	next.Keys = keys
	next.Revision = newRevision()
	if value := string(keys.Current.Value); !sameSecret(value, c.APIKey) {
		now := time.Now().UTC()
		next.APIKey, next.KeySetAt, next.LastRotated = value, now, now
		next.scheduleNext(now)
	}
	return &next
}

// plan is what the settings say about rotation.
func (c *config) plan() rotation.Plan {
	at := c.issuer()
	due, until := c.rotationDue(time.Now())
	return rotation.Plan{
		Kind: at.Kind, Issuer: at.Issuer, CACert: at.CACert,
		Renew: c.renews(), Reuse: c.renews() && c.rotatesAutomatically(), Grace: c.RotationGracePeriod, Due: due, Until: until,
		Secrets: []rotation.Secret{upstream.Secret(c.ClientSecret)},
	}
}

// issuer is where the config's keys are made. Its address is empty if nobody knows it.
func (c *config) issuer() rotation.Binding {
	if c.TokenService != tokenservice.Platform {
		return rotation.Binding{Issuer: c.iamURL(), CACert: c.CACert}
	}
	platform, _ := strings.CutSuffix(c.tokenURL(), "/token")
	if platform == c.tokenURL() {
		platform = ""
	}
	return rotation.Binding{Kind: rotation.KindPlatform, Issuer: platform, CACert: c.CACert}
}

// renews says whether keys work once, so that each token takes a key of its own.
func (c *config) renews() bool { return c.TokenService == tokenservice.Platform && c.Renew }

func (c *config) tokenURL() string {
	if c.TokenURL != "" {
		return c.TokenURL
	}
	if c.TokenService == tokenservice.IAM && c.IAMURL != "" {
		return iamTokenURL(c.IAMURL)
	}
	return tokenservice.DefaultTokenURL(c.TokenService, c.Region)
}

// iamTokenURL is where IBM Cloud IAM exchanges keys.
func iamTokenURL(iamURL string) string { return iamURL + "/identity/token" }

func (c *config) apiURL() string {
	if c.APIURL != "" {
		return c.APIURL
	}
	return tokenservice.DefaultAPIURL(c.TokenService, c.Region, c.tokenURL())
}

// iamURL is where the key is rotated, without a slash at its end. It is empty for
// the platform service, whose keys are none of IBM Cloud's.
func (c *config) iamURL() string {
	if c.TokenService == tokenservice.Platform {
		return ""
	}
	if c.IAMURL != "" {
		return c.IAMURL
	}
	return defaultIAMURL
}

// dropForeignFields clears what only another token service accepts, as is left over
// when a config changes its service.
func (c *config) dropForeignFields() {
	if c.TokenService != tokenservice.Platform {
		c.ClientID, c.ClientSecret, c.Renew = "", "", true
		return
	}
	c.IAMURL = ""
}

// validate checks what depends on more than one field; the setters of the
// fields have checked the rest.
func (c *config) validate(name string) error {
	if c.APIKey == "" {
		return fieldError("api_key", "is required to create a config: pass the key or, with api_key=@apikey.json, the downloaded file")
	}
	if c.Region == "" {
		c.Region = defaultRegion(name)
	}
	if c.tokenURL() == "" || c.TokenService == tokenservice.Login && c.apiURL() == "" {
		return fieldError("region", "is required because the config's name is no DNS label: set region, or both token_url and api_url")
	}
	if c.TokenService == tokenservice.Platform && (c.ClientID == "" || c.ClientSecret == "") {
		return fieldError("client_id and client_secret", "are required by the platform token service: set both, or credentials=@credentials.json")
	}
	if err := c.validateRotation(); err != nil {
		return err
	}
	return c.checkCacheMode()
}

var (
	dnsLabel   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	configName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
)

func isDNSLabel(s string) bool { return dnsLabel.MatchString(s) }

// defaultRegion is the region of a config that names none, or empty if its name
// cannot be one.
func defaultRegion(name string) string {
	if isDNSLabel(name) {
		return name
	}
	return ""
}

// checkName refuses names that could not stand in a policy, a path or a log line.
func checkName(name string) error {
	if len(name) > maxNameLength || strings.Contains(name, "..") || !configName.MatchString(name) {
		return fieldError("name", fmt.Sprintf("must be at most %d letters, digits, '_', '-' and '.', must begin and end with a letter, digit or '_', and must not contain '..'", maxNameLength))
	}
	return nil
}
