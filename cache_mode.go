// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"errors"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
)

// cacheMode is whose readers share a token.
type cacheMode string

const (
	// cacheShared has all readers share one token.
	cacheShared cacheMode = "true"
	// cacheOff gives each read a dedicated token.
	cacheOff cacheMode = "false"
	// cacheEntity has the readers of each Vault entity share one token, and those
	// without an entity one more.
	cacheEntity cacheMode = "entity"
)

// maxEntities bounds the entities of one config that have a token in memory.
const maxEntities = 1000

func cacheSetting() setting {
	return setting{
		name: "cache",
		schema: &framework.FieldSchema{
			Type:          framework.TypeString,
			Description:   "Who shares a token. true: all readers. entity: the readers of each Vault entity, for at most 1,000 entities; not possible with renew. false: nobody, so each read gets a dedicated token.",
			AllowedValues: []any{string(cacheShared), string(cacheOff), string(cacheEntity)},
			Default:       string(cacheShared),
		},
		set: func(c *config, value any) error {
			mode, err := parseCacheMode(value.(string))
			c.Cache = mode
			return err
		},
		get: func(c *config) any { return string(c.Cache) },
	}
}

// parseCacheMode accepts a boolean as people and the framework spell it, which turns
// JSON's true into "1".
func parseCacheMode(value string) (cacheMode, error) {
	if value == string(cacheEntity) {
		return cacheEntity, nil
	}
	shared, err := strconv.ParseBool(value)
	switch {
	case err != nil:
		return "", errors.New("must be true, false or entity")
	case shared:
		return cacheShared, nil
	default:
		return cacheOff, nil
	}
}

// checkCacheMode refuses to keep a token for each entity where each token takes a key of
// its own, with about seven calls and six writes to storage.
func (c *config) checkCacheMode() error {
	if c.Cache != cacheEntity || !c.renews() {
		return nil
	}
	return fieldError("cache", "cannot be entity where keys renew themselves, because each entity's token would take a key of its own: set renew=false if your keys work more than once, or cache=true, and get dedicated tokens with vault write -f on the token's path")
}
