// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	vaultrotation "github.com/hashicorp/vault/sdk/rotation"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// setting is one field of a config: how a request sets it and how a read
// answers it.
type setting struct {
	name   string
	schema *framework.FieldSchema
	set    func(c *config, value any) error
	// onlyFor are the token services that accept the field, if not all do.
	onlyFor []tokenservice.Kind
	// fillsOthers marks a field that has no default of its own to go back to.
	fillsOthers bool
	// inferred is the default of a field whose default depends on the rest of the
	// request, and nil for the others, whose schema says it.
	inferred func(requestFields) any
	// get is nil for a field that is written and never read.
	get func(c *config) any
}

// responseSchema is the schema of the field in a response, where a duration is a
// number of seconds.
func (s setting) responseSchema() *framework.FieldSchema {
	kind := s.schema.Type
	if kind == framework.TypeDurationSecond {
		kind = framework.TypeInt64
	}
	return &framework.FieldSchema{Type: kind, Description: s.schema.Description, Required: true}
}

// defaultValue is what the field goes back to in a request.
func (s setting) defaultValue(request requestFields) any {
	if s.inferred != nil {
		return s.inferred(request)
	}
	return s.schema.DefaultOrZero()
}

// configSettings are the fields of config/<name> in the order in which they are
// checked and documented.
func configSettings() []setting {
	return slices.Concat(
		[]setting{apiKeySetting()},
		addressSettings(),
		clientSettings(),
		requestSettings(),
		sharingSettings(),
		[]setting{renewSetting()},
		rotationSettings(),
	)
}

func apiKeySetting() setting {
	return setting{
		name: "api_key",
		schema: &framework.FieldSchema{
			Type:         framework.TypeString,
			Description:  "API key: the bare key, or the JSON of a downloaded apikey.json (api_key=@apikey.json). Required to create a config, and again in each write that changes where the key or its tokens go. Never returned.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "API key", Sensitive: true},
		},
		set: func(c *config, value any) error {
			key, err := parseAPIKey(value.(string))
			if err != nil {
				return err
			}
			c.APIKey = key
			return nil
		},
	}
}

func addressSettings() []setting {
	return []setting{
		tokenServiceSetting(),
		{
			name: "region",
			schema: &framework.FieldSchema{
				Type:        framework.TypeString,
				Description: "Region of the service, a DNS label. It is part of the default URLs. Defaults to the config's name.",
			},
			set: func(c *config, value any) error {
				region := value.(string)
				if region != "" && !isDNSLabel(region) {
					return errors.New("must be a DNS label: lower-case letters, digits and '-', at most 63, such as us-south")
				}
				c.Region = region
				return nil
			},
			get: func(c *config) any { return c.Region },
		},
		urlSetting("token_url", "URL at which the key is exchanged for a token. Defaults to the region's.",
			func(c *config) *string { return &c.TokenURL }, (*config).tokenURL),
		urlSetting("api_url", "URL of the API manager that accepts the tokens; returned with each token. Defaults to the region's.",
			func(c *config) *string { return &c.APIURL }, (*config).apiURL),
		caCertSetting(),
	}
}

func caCertSetting() setting {
	return setting{
		name: "ca_cert",
		schema: &framework.FieldSchema{
			Type:         framework.TypeString,
			Description:  "PEM bundle of the certificate authorities to trust instead of the system's. It must contain only certificates: no keys, headers or comments.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "CA certificates", EditType: "file"},
		},
		set: func(c *config, value any) error {
			bundle := value.(string)
			if len(bundle) > maxCACertLength {
				return errors.New("is too long for a CA bundle")
			}
			if bundle == "" {
				c.CACert = ""
				return nil
			}
			normal, err := upstream.ParseCACert(bundle)
			if err != nil {
				return err
			}
			c.CACert = normal
			return nil
		},
		get: func(c *config) any { return c.CACert },
	}
}

// clientSettings are the platform's. credentials comes first, so that a field that
// is named beside it wins.
func clientSettings() []setting {
	return []setting{
		{
			name:    "credentials",
			onlyFor: onlyPlatform(), fillsOthers: true,
			schema: &framework.FieldSchema{
				Type:         framework.TypeString,
				Description:  "The toolkit's credentials.json (credentials=@credentials.json), which sets client_id and client_secret. platform only. Never returned.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			set: func(c *config, value any) error {
				found, err := parseCredentials(value.(string))
				if err != nil {
					return err
				}
				c.ClientID, c.ClientSecret = found.clientID, found.clientSecret
				return nil
			},
		},
		{
			name:    "client_id",
			onlyFor: onlyPlatform(),
			schema: &framework.FieldSchema{
				Type:        framework.TypeString,
				Description: "Client id that is sent with the key. Required for platform; the other services do not accept it.",
			},
			set: func(c *config, value any) error {
				c.ClientID = value.(string)
				return checkClientField(c.ClientID)
			},
			get: func(c *config) any { return c.ClientID },
		},
		{
			name:    "client_secret",
			onlyFor: onlyPlatform(),
			schema: &framework.FieldSchema{
				Type:         framework.TypeString,
				Description:  "Client secret that is sent with the key. Required for platform; the other services do not accept it. Never returned.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			set: func(c *config, value any) error {
				c.ClientSecret = strings.TrimSpace(value.(string)) // A file ends with a newline.
				return checkClientField(c.ClientSecret)
			},
		},
	}
}

func requestSettings() []setting {
	return []setting{
		{
			name: "request_timeout",
			schema: &framework.FieldSchema{
				Type:        framework.TypeDurationSecond,
				Description: "Timeout of one attempt to reach the token service, 1s to 60s.",
				Default:     "10s",
			},
			set: func(c *config, value any) error {
				timeout := time.Duration(value.(int)) * time.Second
				if timeout < time.Second || timeout > maxRequestTimeout {
					return errors.New("must be a duration from 1s to 60s")
				}
				c.RequestTimeout = timeout
				return nil
			},
			get: func(c *config) any { return wholeSeconds(c.RequestTimeout) },
		},
		{
			name: "max_retries",
			schema: &framework.FieldSchema{
				Type:        framework.TypeInt,
				Description: "Further attempts after a connection error, a 429 or a 5xx, 0 to 10.",
				Default:     defaultMaxRetries,
			},
			set: func(c *config, value any) error {
				retries := value.(int)
				if retries < 0 || retries > mostRetries {
					return fmt.Errorf("must be a number from 0 to %d", mostRetries)
				}
				c.MaxRetries = retries
				return nil
			},
			get: func(c *config) any { return c.MaxRetries },
		},
	}
}

func sharingSettings() []setting {
	return []setting{
		{
			name: "refresh_before",
			schema: &framework.FieldSchema{
				Type:        framework.TypeDurationSecond,
				Description: "How long before its expiry a shared token is replaced, at most half of its life and 24h. 0 means a quarter of the token's life.",
			},
			set: func(c *config, value any) error {
				before := value.(int)
				if before < 0 || before > int(maxRefreshBefore/time.Second) {
					return errors.New("must be a duration from 0 to 24h")
				}
				c.RefreshBefore = time.Duration(before) * time.Second
				return nil
			},
			get: func(c *config) any { return wholeSeconds(c.RefreshBefore) },
		},
		cacheSetting(),
		boolSetting("lease", false, "Return a Vault lease with each token. Each read then writes to storage. The lease ends no later than the token.",
			func(c *config) *bool { return &c.Lease }),
	}
}

func onlyPlatform() []tokenservice.Kind { return []tokenservice.Kind{tokenservice.Platform} }

// renewSetting is the platform's, whose keys live for minutes and work once by default.
func renewSetting() setting {
	s := boolSetting("renew", true, "Have Vault use each token to make the key for the next one, so that you write only one key, even if it lives five minutes and works once. platform only.",
		func(c *config) *bool { return &c.Renew })
	s.onlyFor = onlyPlatform()
	return s
}

// rotationSettings are those of keys that IBM Cloud IAM manages.
func rotationSettings() []setting {
	iamURL := urlSetting("iam_url", "URL of IBM Cloud IAM, without a path, where the key is rotated and exchanged for iam tokens. login and iam only. Defaults to IBM Cloud's.",
		func(c *config) *string { return &c.IAMURL }, (*config).iamURL)
	iamURL.onlyFor = []tokenservice.Kind{tokenservice.Login, tokenservice.IAM}
	iamURL.set = func(c *config, value any) error {
		origin, err := parseOrigin(value.(string))
		c.IAMURL = origin
		return err
	}
	return []setting{
		iamURL,
		{
			name: "rotation_period",
			schema: &framework.FieldSchema{
				Type:        framework.TypeDurationSecond,
				Description: "How often the API key itself is replaced, 1h to 8784h. A rotation may come up to a tenth of the period earlier, so that configs do not rotate together. 0 means never. Cannot be combined with rotation_schedule. For platform, Vault makes a key for each token; with a period or a schedule, it uses a key that works more than once until the rotation is due.",
			},
			set: func(c *config, value any) error {
				period := time.Duration(value.(int)) * time.Second
				if period != 0 && (period < minRotationPeriod || period > maxRotationPeriod) {
					return errors.New("must be 0 or a duration from 1h to 8784h")
				}
				c.RotationPeriod = period
				return nil
			},
			get: func(c *config) any { return wholeSeconds(c.RotationPeriod) },
		},
		{
			name: "rotation_schedule",
			schema: &framework.FieldSchema{
				Type:        framework.TypeString,
				Description: "When the API key itself is replaced: five cron fields, in UTC, such as \"0 3 * * 0\" for Sundays at 03:00. Cannot be combined with rotation_period.",
			},
			set: func(c *config, value any) error {
				c.RotationSchedule = value.(string)
				if c.RotationSchedule == "" {
					c.RotationWindow = 0 // It has nothing to begin with any more.
					return nil
				}
				_, err := parseSchedule(c.RotationSchedule)
				return err
			},
			get: func(c *config) any { return c.RotationSchedule },
		},
		{
			name: "rotation_window",
			schema: &framework.FieldSchema{
				Type:        framework.TypeDurationSecond,
				Description: "How long after each time of rotation_schedule a rotation may begin, 1h to 8784h. If it cannot begin by then, it waits for the next scheduled time. 0 means no limit. Only with rotation_schedule.",
			},
			set: func(c *config, value any) error {
				window := value.(int)
				if window != 0 && ((&vaultrotation.DefaultSchedule{}).ValidateRotationWindow(window) != nil || window > int(maxRotationWindow/time.Second)) {
					return errors.New("must be 0 or a duration from 1h to 8784h")
				}
				c.RotationWindow = time.Duration(window) * time.Second
				return nil
			},
			get: func(c *config) any { return wholeSeconds(c.RotationWindow) },
		},
		boolSetting("disable_automated_rotation", false, "Keep rotation_period or rotation_schedule, but rotate the key only on request.",
			func(c *config) *bool { return &c.DisableAutomatedRotation }),
		{
			name: "rotation_grace_period",
			schema: &framework.FieldSchema{
				Type:        framework.TypeDurationSecond,
				Description: "How long a replaced API key stays valid before it is deleted at its issuer: 0 to 168h, and less than half of rotation_period or of the shortest time between two times of rotation_schedule. Halfway through, the key is disabled, if its issuer can do that.",
				Default:     "5m",
			},
			set: func(c *config, value any) error {
				grace := time.Duration(value.(int)) * time.Second
				if grace < 0 || grace > maxGracePeriod {
					return errors.New("must be a duration from 0 to 168h")
				}
				c.RotationGracePeriod = grace
				return nil
			},
			get: func(c *config) any { return wholeSeconds(c.RotationGracePeriod) },
		},
	}
}

func urlSetting(name, description string, stored func(*config) *string, effective func(*config) string) setting {
	return setting{
		name:   name,
		schema: &framework.FieldSchema{Type: framework.TypeString, Description: description + " Must be https, or http for a loopback host."},
		set: func(c *config, value any) error {
			*stored(c) = value.(string)
			return checkURL(*stored(c))
		},
		get: func(c *config) any { return effective(c) },
	}
}

func boolSetting(name string, byDefault bool, description string, stored func(*config) *bool) setting {
	return setting{
		name:   name,
		schema: &framework.FieldSchema{Type: framework.TypeBool, Description: description, Default: byDefault},
		set: func(c *config, value any) error {
			*stored(c) = value.(bool)
			return nil
		},
		get: func(c *config) any { return *stored(c) },
	}
}

// applySettings sets those of the fields that the request names, and no others. A
// field that is null, as in a JSON merge patch, goes back to its default.
func (c *config) applySettings(settings []setting, d *framework.FieldData) error {
	for _, s := range settings {
		raw, named := d.Raw[s.name]
		if !named || raw == nil && s.fillsOthers {
			continue
		}
		value := s.defaultValue(d.Raw)
		if raw != nil {
			value = d.Get(s.name)
		}
		if err := s.set(c, value); err != nil {
			return fieldError(s.name, err.Error())
		}
		// The service is set by now if the request sets it; see configSettings.
		if raw != nil && s.onlyFor != nil && !slices.Contains(s.onlyFor, c.TokenService) {
			return fieldError(s.name, fmt.Sprintf("is accepted by the %s only, and this config's is %s", listServices(s.onlyFor), c.TokenService))
		}
	}
	c.dropForeignFields()
	return nil
}

func listServices(kinds []tokenservice.Kind) string {
	if len(kinds) == 1 {
		return string(kinds[0]) + " token service"
	}
	var names []string
	for _, kind := range kinds {
		names = append(names, string(kind))
	}
	return strings.Join(names, " and ") + " token services"
}

func allowedKinds() []any {
	var kinds []any
	for _, kind := range tokenservice.Kinds() {
		kinds = append(kinds, string(kind))
	}
	return kinds
}

func wholeSeconds(d time.Duration) int64 { return int64(d / time.Second) }
