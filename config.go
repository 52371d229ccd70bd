// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/helper/jsonutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

const (
	// configSchema is the version of the stored form of a config, and
	// rotationSchema that of one which says anything about rotation. A config
	// without it is stored as before, so that an older build can still read it.
	configSchema   = 1
	rotationSchema = 2

	defaultRequestTimeout = 10 * time.Second
	maxRequestTimeout     = time.Minute
	defaultMaxRetries     = 2
	mostRetries           = 10
	maxRefreshBefore      = 24 * time.Hour
	minRotationPeriod     = time.Hour
	maxRotationPeriod     = 366 * 24 * time.Hour

	defaultIAMURL = "https://iam.cloud.ibm.com"

	maxNameLength   = 128
	maxCACertLength = 256 << 10
)

// config is the stored form of config/<name>. Durations are nanoseconds.
type config struct {
	Schema         int               `json:"schema"`
	APIKey         string            `json:"api_key"`
	TokenService   tokenservice.Kind `json:"token_service"`
	Region         string            `json:"region,omitempty"`
	TokenURL       string            `json:"token_url,omitempty"`
	APIURL         string            `json:"api_url,omitempty"`
	ClientID       string            `json:"client_id,omitempty"`
	ClientSecret   string            `json:"client_secret,omitempty"`
	CACert         string            `json:"ca_cert,omitempty"`
	RequestTimeout time.Duration     `json:"request_timeout"`
	MaxRetries     int               `json:"max_retries"`
	RefreshBefore  time.Duration     `json:"refresh_before,omitempty"`
	Cache          bool              `json:"cache"`
	Lease          bool              `json:"lease"`
	IAMURL         string            `json:"iam_url,omitempty"`
	RotationPeriod time.Duration     `json:"rotation_period,omitempty"`
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`
	// KeySetAt is when the present key came, by a write or a rotation.
	KeySetAt time.Time `json:"key_set_at,omitzero"`
	// APIKeyID is IAM's id of a key that rotation made, and empty for one that
	// somebody brought. Nobody outside this config knows such a key.
	APIKeyID     string    `json:"api_key_id,omitempty"`
	LastRotated  time.Time `json:"last_rotated,omitzero"`
	NextRotation time.Time `json:"next_rotation,omitzero"`
	// Revision counts the writes, so that a write which was prepared while
	// another one happened is noticed.
	Revision uint64 `json:"revision"`
}

func defaultConfig(now time.Time) *config {
	return &config{
		Schema:         configSchema,
		TokenService:   tokenservice.Login,
		RequestTimeout: defaultRequestTimeout,
		MaxRetries:     defaultMaxRetries,
		Cache:          true,
		CreatedAt:      now,
	}
}

// sameWriteAs says whether two configs of one name come from the same write. A
// config that was deleted and created again counts its revisions anew, but was
// created at another time.
func (c *config) sameWriteAs(other *config) bool {
	return c.Revision == other.Revision && c.CreatedAt.Equal(other.CreatedAt)
}

// follows says whether c was derived from present, which is nil if there is none.
func (c *config) follows(present *config) bool {
	if present == nil {
		return c.Revision == 1
	}
	return c.Revision == present.Revision+1 && c.CreatedAt.Equal(present.CreatedAt)
}

// follow makes c the config that comes after stored, which is nil if there is none.
func (c *config) follow(stored *config, now time.Time) {
	c.noteKey(stored, now)
	c.UpdatedAt = now
	c.Revision++
}

// replacesKeyOf says whether c takes the key of stored, which may be nil, out of use.
func (c *config) replacesKeyOf(stored *config) bool {
	return stored != nil && !sameSecret(stored.APIKey, c.APIKey)
}

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

// dropForeignFields clears what only another token service takes, as is left over
// when a config changes its service.
func (c *config) dropForeignFields() {
	if c.TokenService != tokenservice.Platform {
		c.ClientID, c.ClientSecret = "", ""
		return
	}
	c.IAMURL, c.RotationPeriod = "", 0
}

// schema is the oldest version that a build must know to keep all that c says.
func (c *config) schema() int {
	if c.APIKeyID == "" && c.RotationPeriod == 0 && c.IAMURL == "" {
		return configSchema
	}
	return rotationSchema
}

// loadConfig returns a stored config, or nil if there is none.
func loadConfig(ctx context.Context, s logical.Storage, name string) (*config, error) {
	stored, err := s.Get(ctx, configStoragePrefix+name)
	if err != nil {
		return nil, storageError("reading config "+name, err)
	}
	if stored == nil {
		return nil, nil
	}
	var versioned struct {
		Schema int `json:"schema"`
	}
	if err := jsonutil.DecodeJSON(stored.Value, &versioned); err == nil && versioned.Schema > rotationSchema {
		return nil, &unreadableError{fmt.Sprintf("config %q was stored by a newer version of the plugin (schema %d, this build knows %d); run that version again", name, versioned.Schema, rotationSchema)}
	}
	var c config
	if err := jsonutil.DecodeJSON(stored.Value, &c); err != nil {
		// The decoder's error may quote what it could not decode.
		return nil, &unreadableError{fmt.Sprintf("stored config %q cannot be decoded", name)}
	}
	return &c, nil
}

// storeConfig writes a config. The entry carries the key, which is why its
// storage prefix is seal-wrapped.
func storeConfig(ctx context.Context, s logical.Storage, name string, c *config) error {
	stored := *c
	stored.Schema = c.schema()
	entry, err := logical.StorageEntryJSON(configStoragePrefix+name, stored)
	if err != nil {
		return fmt.Errorf("config %q cannot be encoded", name)
	}
	if err := s.Put(ctx, entry); err != nil {
		return storageError("writing config "+name, err)
	}
	return nil
}

// noteKey keeps the books on the key: since when it is there, what IAM calls it, and
// when it is to be rotated. A key stays what it is when the addresses change: what
// is known of a managed key is what it takes to delete it one day.
func (c *config) noteKey(stored *config, now time.Time) {
	sameKey := stored != nil && sameSecret(stored.APIKey, c.APIKey)
	if !sameKey {
		c.KeySetAt, c.APIKeyID, c.LastRotated = now, "", time.Time{}
	}
	switch {
	case c.RotationPeriod == 0:
		c.NextRotation = time.Time{}
	case !sameKey || stored.RotationPeriod != c.RotationPeriod:
		c.NextRotation = nextRotation(now, c.RotationPeriod)
	}
}

// rotationDue is when the key is to be rotated next, as of now, or zero if it is not
// by schedule. What lies further ahead than a period was set by a clock that has been
// set back since, and is due.
func (c *config) rotationDue(now time.Time) time.Time {
	if c.NextRotation.After(now.Add(c.RotationPeriod)) {
		return now
	}
	return c.NextRotation
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
	return nil
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
		return fieldError("name", fmt.Sprintf("takes at most %d letters, digits, '_', '-' and '.', begins and ends with a letter, digit or '_', and has no '..'", maxNameLength))
	}
	return nil
}
