// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// The fields of what a check has found.
const (
	checkToken               = "token"
	checkAPIKey              = "api_key"
	checkAPIKeyExpiry        = "api_key_expiry"
	checkIdentity            = "identity"
	checkAPIKeyCount         = "api_key_count"
	checkRights              = "rights"
	checkUnknownAPIKeys      = "unknown_api_keys"
	checkOtherConfigs        = "other_configs"
	checkRotation            = "rotation"
	checkCleanup             = "cleanup"
	checkClock               = "clock"
	checkTokenURL            = "token_url"
	checkTokenURLCertificate = "token_url_certificate"
	checkIAMURL              = "iam_url"
	checkIAMURLCertificate   = "iam_url_certificate"
	checkAPIURL              = "api_url"
)

// checker finds out what would stop a rotation or a read of one config, and changes
// nothing.
type checker struct {
	name  string
	entry *entry

	issuer     rotation.Issuer
	engine     *rotation.Engine
	holders    *rotation.Holders
	limits     *exchangeLimits
	transports *upstream.Transports
	log        hclog.Logger
}

// newChecker returns what checks e, the entry of the config called name.
func (b *backend) newChecker(name string, e *entry) *checker {
	return &checker{
		name: name, entry: e, issuer: b.issuer, engine: b.rotations.engine, holders: b.configs.holders,
		limits: b.limits, transports: &b.transports, log: b.Logger(),
	}
}

// check asks all that there is to ask, at the same time.
func (k *checker) check(ctx context.Context) []finding {
	var (
		token, api         finding
		key                issuerFacts
		tokenHost, iamHost hostFacts
	)
	c := k.entry.config
	parts := []func(){
		func() { token = k.token(ctx) },
		func() { key = k.askIssuer(ctx) },
		func() { tokenHost = k.askHost(ctx, c.tokenURL()) },
		func() { api = k.apiURL(ctx) },
	}
	if c.iamURL() != "" {
		parts = append(parts, func() { iamHost = k.askHost(ctx, c.iamURL()) })
	}
	k.together(parts)

	findings := []finding{token}
	findings = append(findings, key.findings...)
	findings = append(findings, tokenHost.findings(checkTokenURL, checkTokenURLCertificate)...)
	findings = append(findings, iamHost.findings(checkIAMURL, checkIAMURLCertificate)...)
	findings = append(findings, api, k.otherConfigs(), k.rotation(), k.cleanup(), k.clock(key, tokenHost))
	return k.complete(findings)
}

// together runs parts at the same time. One that panics has found nothing.
func (k *checker) together(parts []func()) {
	var wg sync.WaitGroup
	for _, part := range parts {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					reportPanic(k.log, p, "checking a config")
				}
			}()
			part()
		})
	}
	wg.Wait()
}

// complete drops what does not apply, and withholds a text with a secret in it, which
// there should be none of.
func (k *checker) complete(findings []finding) []finding {
	var told []finding
	for _, f := range findings {
		switch {
		case f.name == "":
			continue
		case upstream.HoldsWhole(f.detail+f.action, k.secrets()...):
			f = finding{f.name, resultError, "what was found holds a secret and is not told", "report this"}
		}
		told = append(told, f)
	}
	for _, name := range []string{checkToken, checkAPIKey, checkTokenURL} {
		if !slices.ContainsFunc(told, func(f finding) bool { return f.name == name }) {
			told = append(told, finding{name, resultUnknown, "the plugin failed; the server's log says where", ""})
		}
	}
	return told
}

func (k *checker) secrets() []rotation.Secret {
	c := k.entry.config
	secrets := append(c.Keys.KeyValues(), upstream.Secret(c.ClientSecret))
	if kept := c.Keys.Token; kept != nil {
		secrets = append(secrets, kept.Value)
	}
	if token := k.entry.source.Current(); token != nil {
		secrets = append(secrets, token.Value)
	}
	return secrets
}

// token says what a reader of the shared token would get. It gets a token as a reader
// does, with its backoff, its slots and its sharing, unless that takes a key which may
// work once.
func (k *checker) token(ctx context.Context) finding {
	c, source := k.entry.config, k.entry.source
	if source.IsFresh(0) {
		return k.freshToken()
	}
	if c.TokenService == tokenservice.Platform {
		return k.unspentToken()
	}
	if _, err := source.Read(ctx, 0); err != nil {
		return failedFinding(checkToken, err)
	}
	return k.freshToken()
}

func (k *checker) freshToken() finding {
	status := k.entry.source.Status()
	if status.Token == nil {
		return finding{checkToken, resultUnknown, "the shared token has just expired", "check again"}
	}
	detail := k.sharing() + " that lives until " + timeText(status.Token.ExpiresAt)
	if status.Failures > 0 && status.LastError != nil {
		return finding{checkToken, resultWarning, fmt.Sprintf("%s, but the last exchange failed at %s: %s", detail, timeText(status.LastErrorAt), status.LastError), ""}
	}
	return finding{checkToken, resultOK, detail, ""}
}

// sharing says whose the token is that was looked at.
func (k *checker) sharing() string {
	switch k.entry.config.Cache {
	case cacheOff:
		return "each read gets a token of its own, and this check got one"
	case cacheEntity:
		return "each entity has a token of its own, and requests without an entity one"
	default:
		return "readers share a token"
	}
}

// unspentToken is for the platform's keys: no token is fresh, and another one takes a key.
func (k *checker) unspentToken() finding {
	c := k.entry.config
	if !c.renews() {
		return finding{checkToken, resultUnknown, "there is no fresh token, and the key was not tried, because it may work only once", "read token/" + k.name + " to try it"}
	}
	if until := c.Keys.CanBeAwayUntil(); !until.IsZero() {
		return finding{checkToken, resultOK, "the next read renews the token; Vault has a way to another one until " + timeText(until), ""}
	}
	if c.Keys.Current.Spent {
		return finding{checkToken, resultError, "there is no token any more, and the key was used", "write the config again with another api_key"}
	}
	return finding{checkToken, resultUnknown, "there is no token, and the key was not tried, because it may work only once", "read token/" + k.name + " to try it"}
}

// otherConfigs says whether the key is in this config alone, which a rotation takes.
func (k *checker) otherConfigs() finding {
	by, held := k.holders.OtherHolder(rotation.Ref{Config: k.name}, k.entry.config.Keys.Current.Value)
	switch {
	case held:
		return finding{checkOtherConfigs, resultError, by.String() + " holds the same API key, which a rotation would delete", "give each config a key of its own"}
	case !k.holders.IsListed():
		return finding{checkOtherConfigs, resultUnknown, "the plugin has not read all configs of this mount since it started", "check again in a minute"}
	default:
		return finding{checkOtherConfigs, resultOK, "no other config of this mount holds the key", ""}
	}
}

// rotation says how the last one went, and when the next one is due.
func (k *checker) rotation() finding {
	c, status := k.entry.config, k.engine.Status(rotation.Ref{Config: k.name})
	due, _ := c.rotationDue(time.Now())
	switch {
	case status.Failures > 0 && status.Last != nil:
		return finding{checkRotation, resultError, fmt.Sprintf("the last one failed at %s: %s", timeText(status.LastAt), status.Last), ""}
	case c.TokenService == tokenservice.Platform && !c.Renew:
		return finding{checkRotation, resultOK, "renew=false: Vault makes none of this config's keys", ""}
	case c.renews() && c.issuer().Issuer == "":
		return finding{checkRotation, resultError, "token_url does not end in /token, so Vault does not know where its keys are made", "correct token_url"}
	case !due.IsZero():
		return finding{checkRotation, resultOK, "the next one is due at " + timeText(due), ""}
	case c.renews():
		return finding{checkRotation, resultOK, "the key renews itself", ""}
	default:
		return finding{checkRotation, resultOK, "none is scheduled", ""}
	}
}

// cleanup says what of earlier keys is still to be deleted.
func (k *checker) cleanup() finding {
	keys := k.entry.config.Keys
	left := slices.DeleteFunc(slices.Clone(keys.Retired), func(r rotation.Retired) bool { return r.Keep })
	status := k.engine.Status(rotation.Ref{Config: k.name})
	for _, failed := range status.Cleanups {
		if slices.ContainsFunc(left, func(r rotation.Retired) bool { return r.ID == failed.KeyID }) {
			return finding{checkCleanup, resultWarning, fmt.Sprintf("%s to be deleted, of which %s could not be: %s", count(len(left), "replaced key is", "replaced keys are"), failed.KeyID, failed.Reason), "it is tried again; status/" + k.name + " has all of them"}
		}
	}
	detail := "no replaced key is left to be deleted"
	if len(left) > 0 {
		detail = count(len(left), "replaced key is", "replaced keys are") + " to be deleted"
		if until := left[0].DeleteAfter; !until.IsZero() {
			detail += ", the first after " + timeText(until)
		}
	}
	switch {
	case len(left) >= rotation.MaxRetired:
		return finding{checkCleanup, resultError, detail + ", and no rotation makes another key until some of them are deleted", "see status/" + k.name}
	case keys.Candidate != nil && !k.entry.config.renews() || keys.Intent != nil:
		detail += "; a rotation is under way"
	}
	return finding{checkCleanup, resultOK, detail, ""}
}

// clockTolerance is what clocks may differ by, and calls take.
const clockTolerance = time.Minute

// clock compares this host's clock with the issuer's, or, where that told no time, the
// token service's.
func (k *checker) clock(key issuerFacts, host hostFacts) finding {
	var (
		ahead time.Duration
		whose string
	)
	token := k.entry.source.Current()
	switch {
	case key.clockRead:
		ahead, whose = key.clockSkew, "the issuer's"
	case host.reach.Dated:
		ahead, whose = host.reach.ClockSkew, "that of token_url's host"
	case token != nil && token.ClockSkew != 0:
		ahead, whose = token.ClockSkew, "the token service's when it issued the shared token"
	default:
		return finding{checkClock, resultUnknown, "no response of the issuer or the token service had the time", ""}
	}
	ahead = ahead.Truncate(time.Second)
	if ahead.Abs() < clockTolerance {
		return finding{checkClock, resultOK, "this host's clock is within a minute of " + whose, ""}
	}
	word := "ahead of"
	if ahead < 0 {
		word = "behind"
	}
	return finding{checkClock, resultWarning, fmt.Sprintf("this host's clock is %s %s %s", ahead.Abs(), word, whose), "set the clock of Vault's host: Vault uses it to say when tokens and keys expire"}
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// quoted is a text of an issuer's, which is for people.
func quoted(text string) string {
	const longest = 128
	return fmt.Sprintf("%q", strings.ToValidUTF8(text[:min(len(text), longest)], ""))
}
